"""A model without some units computes what the whole one does with those units silenced."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gptdist.compress.prune.slicing import Kept, KeptLayer, everything, pruned_config, pruned_tensors
from gptdist.config.layer_shapes import LayerShapes
from gptdist.config.model import ModelConfig
from gptdist.errors import ConfigError
from gptdist.model.arithmetic import num_parameters
from gptdist.model.hf_names import logical_shapes
from tests.support.datasets import SHAPES
from tests.unit.compress.small_models import LLAMA_SWITCHES, Logits, TrainedModel, trained

ROUNDING = 2e-5
"""Of logits of up to 10 in fp32, whose sums run in another order."""

MUP = {"init": "mup", "mup_base_hidden_size": 16, "mup_base_head_size": 4}
SECTIONS: dict[str, dict[str, Any]] = {
    "gpt2": {"num_layers": 3},
    "gpt2-untied-wide-heads": {"num_layers": 3, "tie_embeddings": False, "kv_channels": 12, "qk_norm": True},
    "llama": LLAMA_SWITCHES | {"num_layers": 3},
    "qwen3-biases-mup": LLAMA_SWITCHES | MUP | {"num_layers": 3, "qk_norm": True, "add_bias": True},
    "qwen2-untied": LLAMA_SWITCHES | {"num_layers": 3, "add_qkv_bias": True, "tie_embeddings": False},
    "neox": {"num_layers": 3, "position_embedding": "rope", "rotary_fraction": 0.5, "tie_embeddings": False},
    "llama-biases-mup": LLAMA_SWITCHES | MUP | {"num_layers": 2, "add_bias": True},
    "mixtral": LLAMA_SWITCHES | {"num_layers": 3, "moe": {"num_experts": 3}},
    "shapes": {"num_layers": 4, "layer_shapes": tuple(LayerShapes(**one) for one in SHAPES), "num_query_groups": 2},
}
TOKENS = torch.arange(48).reshape(2, 24) * 5 % 257


def sliced(model: TrainedModel, kept: Kept) -> TrainedModel:
    child = pruned_config(model.config, kept)
    return TrainedModel(child, dict(pruned_tensors(model.config, kept, model.weight)))


def silenced(model: TrainedModel, ends: tuple[str, ...], change: Callable[[str, Tensor], Tensor]) -> TrainedModel:
    """The same model with some weights changed."""
    weights = {
        name: change(name, tensor.clone()) if name.endswith(ends) else tensor for name, tensor in model.weights.items()
    }
    return TrainedModel(model.config, weights)


def assert_same(found: TrainedModel, expected: TrainedModel, megatron_logits: Logits) -> None:
    wanted = megatron_logits(expected, TOKENS, "float32")
    torch.testing.assert_close(megatron_logits(found, TOKENS, "float32"), wanted, atol=ROUNDING, rtol=ROUNDING)
    assert wanted.std() > 0.1


def with_layers(config: ModelConfig, change: Callable[[KeptLayer], KeptLayer]) -> Kept:
    kept = everything(config)
    return replace(kept, layers=tuple(change(layer) for layer in kept.layers))


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_all_units_are_the_model(section: dict[str, Any]) -> None:
    model = trained(**section)
    child = sliced(model, everything(model.config))
    assert child.weights.keys() == model.weights.keys()
    assert all(torch.equal(child.weights[name], model.weights[name]) for name in model.weights)
    assert logical_shapes(child.config) == logical_shapes(model.config)


@pytest.mark.parametrize("section", [SECTIONS[name] for name in SECTIONS if name != "mixtral"])
def test_neurons_go_without_a_trace(section: dict[str, Any], megatron_logits: Logits) -> None:
    model = trained(**section)
    kept = with_layers(model.config, lambda one: replace(one, ffn=one.ffn[one.layer % 2 :: 2]))
    child = sliced(model, kept)

    def without(name: str, matrix: Tensor) -> Tensor:
        matrix[:, 1 - int(name.split(".")[2]) % 2 :: 2] = 0.0
        return matrix

    assert_same(child, silenced(model, ("linear_fc2.weight",), without), megatron_logits)
    assert num_parameters(child.config) == sum(tensor.numel() for tensor in child.weights.values())


@pytest.mark.parametrize("name", ["gpt2", "gpt2-untied-wide-heads", "qwen2-untied", "neox", "mixtral"])
def test_heads_or_groups_go_without_a_trace(name: str, megatron_logits: Logits) -> None:
    """The second and the last query group of each layer are cut, or of two groups the first."""
    model = trained(**SECTIONS[name])
    size, groups = model.config.head_size, model.config.query_groups
    heads = model.config.num_attention_heads // groups
    stay = (0, 2) if groups == 4 else (1,)
    head_numbers = tuple(group * heads + head for group in stay for head in range(heads))
    child = sliced(model, with_layers(model.config, lambda one: replace(one, groups=stay, heads=head_numbers)))
    assert child.config.num_attention_heads == len(head_numbers)
    assert child.config.head_size == size

    def without(_: str, matrix: Tensor) -> Tensor:
        gone = [head for head in range(heads * groups) if head not in head_numbers]
        matrix.view(matrix.shape[0], -1, size)[:, gone] = 0.0
        return matrix

    assert_same(child, silenced(model, ("linear_proj.weight",), without), megatron_logits)


@pytest.mark.parametrize("name", ["llama", "qwen3-biases-mup"])
def test_heads_within_groups_go_without_a_trace(name: str, megatron_logits: Logits) -> None:
    """One head of each of two groups is cut, in another place by group and layer."""
    model = trained(**SECTIONS[name])
    stay = {0: (0, 3), 1: (1, 2), 2: (1, 3)}
    child = sliced(model, with_layers(model.config, lambda one: replace(one, heads=stay[one.layer])))
    assert (child.config.num_attention_heads, child.config.query_groups) == (2, 2)

    def without(tensor: str, matrix: Tensor) -> Tensor:
        gone = [head for head in range(4) if head not in stay[int(tensor.split(".")[2])]]
        matrix.view(matrix.shape[0], 4, -1)[:, gone] = 0.0
        return matrix

    assert_same(child, silenced(model, ("linear_proj.weight",), without), megatron_logits)


@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral"])
def test_a_layer_goes_without_a_trace(name: str, megatron_logits: Logits) -> None:
    model = trained(**SECTIONS[name])
    kept = everything(model.config)
    child = sliced(model, replace(kept, layers=(kept.layers[0], kept.layers[2])))
    assert child.config.num_layers == 2

    def without(tensor: str, values: Tensor) -> Tensor:
        return values.zero_() if ".layers.1." in tensor else values

    ends = ("linear_proj.weight", "linear_proj.bias", "linear_fc2.weight", "linear_fc2.bias")
    assert_same(child, silenced(model, ends, without), megatron_logits)


@pytest.mark.parametrize("name", ["llama", "qwen2-untied", "llama-biases-mup", "mixtral"])
def test_silent_channels_go_without_a_trace(name: str, megatron_logits: Logits) -> None:
    """A mean square over fewer channels is larger by h / h', which epsilon and weights of the norms take back."""
    model = trained(**SECTIONS[name])
    width, stay = model.config.hidden_size, tuple(channel for channel in range(32) if channel % 4 < 2)
    gone = [channel for channel in range(width) if channel not in stay]
    writers = ("word_embeddings.weight", "proj.weight", "proj.bias", "fc2.weight", "fc2.bias")

    def without(tensor: str, values: Tensor) -> Tensor:
        values[(..., gone) if "embeddings" in tensor or "bias" in tensor else (..., gone, slice(None))] = 0.0
        return values

    whole = silenced(model, writers, without)
    child = sliced(whole, replace(everything(whole.config), hidden=stay))
    ratio = width / len(stay)
    child.config = child.config.model_copy(update={"norm_epsilon": whole.config.norm_epsilon * ratio})
    for tensor in child.weights:
        if tensor.endswith("layernorm.weight"):
            child.weights[tensor] *= ratio**0.5
    assert_same(child, whole, megatron_logits)


def test_learned_positions_and_biases_lose_channels_too() -> None:
    model = trained(**SECTIONS["gpt2"])
    stay = tuple(range(8, 24))
    child = sliced(model, replace(everything(model.config), hidden=stay))
    assert {name: tuple(tensor.shape) for name, tensor in child.weights.items()} == logical_shapes(child.config)
    for name in ("embedding.position_embeddings.weight", "decoder.layers.1.mlp.linear_fc2.bias"):
        assert torch.equal(child.weights[name], model.weights[name][..., 8:24])
    assert child.config.kv_channels == 8


def test_parts_of_layers_go(megatron_logits: Logits) -> None:
    """Attention of one layer, and the feed-forward part of another: what remains has layer_shapes."""
    model = trained(**SECTIONS["gpt2"])

    def change(one: KeptLayer) -> KeptLayer:
        if one.layer == 0:
            return replace(one, ffn=())
        return replace(one, groups=(), heads=()) if one.layer == 1 else one

    child = sliced(model, with_layers(model.config, change))
    assert child.config.layer_shapes is not None

    def without(tensor: str, values: Tensor) -> Tensor:
        return values.zero_() if ("0.mlp" in tensor or "1.self_attention" in tensor) else values

    ends = ("linear_proj.weight", "linear_proj.bias", "linear_fc2.weight", "linear_fc2.bias")
    assert_same(child, silenced(model, ends, without), megatron_logits)


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"local_attention_window": 5}, "model.local_attention_window: every second layer has it"),
        (
            LLAMA_SWITCHES | {"moe": {"num_experts": 2, "every_n_layers": 2}},
            r"model.moe.every_n_layers \(2\): not every layer has experts, so that no layer can go",
        ),
    ],
)
def test_layers_of_two_kinds_are_kept(switches: dict[str, Any], message: str) -> None:
    config = trained(**({"num_layers": 4} | switches)).config
    kept = everything(config)
    with pytest.raises(ConfigError, match=message):
        pruned_config(config, replace(kept, layers=kept.layers[:2]))


def test_what_is_no_model_is_refused() -> None:
    config = trained(**SECTIONS["llama"]).config
    with pytest.raises(ConfigError, match=r"layer 0: 3 heads over groups as \[2, 1\]; keep as many heads"):
        pruned_config(config, with_layers(config, lambda one: replace(one, heads=(0, 1, 2))))
    with pytest.raises(ConfigError, match=r"pruned model: model.layer_shapes\[0\]: neither attention nor feed-forward"):
        pruned_config(
            config,
            with_layers(config, lambda one: replace(one, heads=(), groups=(), ffn=()) if one.layer == 0 else one),
        )
