"""Layers of different shapes: what they mean, and what is refused."""

from typing import Any

import pytest

from gptdist.config.activations import LayerSizes
from gptdist.config.layer_shapes import LayerShape
from gptdist.config.model import ModelConfig
from gptdist.config.parallel import ParallelConfig
from gptdist.errors import ConfigError

SIZES: dict[str, Any] = {
    "num_layers": 4,
    "hidden_size": 32,
    "num_attention_heads": 8,
    "seq_length": 16,
    "vocab_size": 50,
}


def model(*shapes: dict[str, Any], **switches: Any) -> ModelConfig:
    return ModelConfig.from_tree(SIZES | {"layer_shapes": list(shapes)} | switches)


def test_what_is_unset_is_the_models() -> None:
    shapes = model({"layers": 2}, {"num_attention_heads": 6}, {"num_attention_heads": 0, "ffn_hidden_size": 7}).shapes()
    assert shapes == [LayerShape(8, 8, 128), LayerShape(8, 8, 128), LayerShape(6, 6, 128), LayerShape(0, 0, 7)]


def test_groups_of_the_model_stay_where_heads_are_fewer() -> None:
    grouped = model({"num_attention_heads": 6}, {"num_query_groups": 4}, {"layers": 2}, num_query_groups=2)
    assert grouped.problems() == []
    assert grouped.shapes() == [LayerShape(6, 2, 128), LayerShape(8, 4, 128)] + 2 * [LayerShape(8, 2, 128)]
    assert LayerSizes.of(grouped, 0) == LayerSizes(hidden=32, heads=6, groups=2, head_size=4, ffn=128)


def test_all_problems_are_told_at_once() -> None:
    problems = model(
        {"layers": 0},
        {"num_attention_heads": 6, "num_query_groups": 4},
        {"ffn_hidden_size": -1, "num_query_groups": -2},
        {"ffn_hidden_size": 0, "num_attention_heads": 0},
        {"num_attention_heads": 0, "num_query_groups": 2},
        {"num_query_groups": 0},
    ).problems()
    assert problems == [
        "model.layer_shapes[0].layers: must be at least 1, got 0",
        "model.layer_shapes[1].num_query_groups (4) does not divide num_attention_heads (6); use one of [1, 2, 3, 6]",
        "model.layer_shapes[2].ffn_hidden_size: must be at least 0, got -1",
        "model.layer_shapes[2].num_query_groups: must be at least 0, got -2",
        "model.layer_shapes[3]: neither attention nor feed-forward part; remove it, and lower model.num_layers",
        "model.layer_shapes[4].num_query_groups: 2 without attention heads; remove it",
        "model.layer_shapes[5].num_query_groups (0) does not divide num_attention_heads (8); use one of [1, 2, 4, 8]",
        "model.layer_shapes: 5 layers where model.num_layers is 4; give 4 in all, counting each entry's layers",
    ]


def test_experts_are_refused() -> None:
    (problem,) = model({"layers": 4}, moe={"num_experts": 4}, add_bias=False).problems()
    assert problem == "model.layer_shapes: not done for models with experts; remove it, or model.moe"


def test_an_unknown_key_has_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"layer_shapes\[0\]\.num_heads: unknown key"):
        model({"num_heads": 3})


def test_tensor_parallelism_must_divide_every_layer() -> None:
    """The model's own sizes count where a layer has them, and parts that are not there always divide."""
    pruned = model({"num_attention_heads": 6, "ffn_hidden_size": 10}, {"layers": 2}, {"num_attention_heads": 0})
    assert pruned.problems() == []
    assert ParallelConfig(tensor_parallel_size=2).problems(2, pruned) == []
    assert ParallelConfig(tensor_parallel_size=4).problems(4, pruned) == [
        f"parallel.tensor_parallel_size (4) does not divide model.layer_shapes[0].{name} ({size}); "
        f"use one of [1, 2], or change the model"
        for name, size in (("num_attention_heads", 6), ("num_query_groups", 6), ("ffn_hidden_size", 10))
    ]
    everywhere = model({"layers": 4, "ffn_hidden_size": 64}, ffn_hidden_size=63)
    assert ParallelConfig(tensor_parallel_size=2).problems(2, everywhere) == []
