"""A model with the same switches and kinds of layers as another, and the smallest sizes that show what they do."""

from typing import Any

from gptdist.config.layer_shapes import LayerShape, LayerShapes
from gptdist.config.model import ModelConfig
from gptdist.config.moe import MoeConfig
from gptdist.config.shrink_axes import Axes

HEAD_SIZE = 8
"""Even, as rotary positions need it."""


def small_model(
    model: ModelConfig, real: Axes, small: Axes, *, seq_length: int, vocab_size: int | None
) -> dict[str, Any]:
    """Return the small model's section as plain data.

    What is one or several of a kind stays so: heads of a group, groups, layers, and experts of a rank.

    Args:
        model: the real one.
        real: its axes.
        small: those that the small one must suit.
        seq_length: of the small one.
        vocab_size: likewise; default: the real one's.
    """
    common = _small_shape(model, real, small)
    hidden = _hidden_size(model, common.heads)
    wide = _rounded_up(2 * hidden, small.tensor)
    tree = model.tree() | {
        "num_layers": small.pipeline * min(2, model.num_layers // real.pipeline),
        "hidden_size": hidden,
        "num_attention_heads": common.heads,
        "num_query_groups": None if model.num_query_groups is None else common.groups,
        "kv_channels": None if model.kv_channels is None else HEAD_SIZE,
        "ffn_hidden_size": None if model.ffn_hidden_size is None else wide,
        "seq_length": seq_length,
        "vocab_size": model.vocab_size if vocab_size is None else vocab_size,
        "local_attention_window": _window(model, seq_length),
        "rotary_fraction": max(2, int(HEAD_SIZE * model.rotary_fraction) // 2 * 2) / HEAD_SIZE,
    }
    if model.rope_scaling is not None:
        reach = max(1, model.rope_scaling.original_seq_length * seq_length // model.seq_length)
        tree["rope_scaling"]["original_seq_length"] = reach
    if model.mup_base_hidden_size is not None:
        tree["mup_base_hidden_size"] = _scaled(model.mup_base_hidden_size, hidden, model.hidden_size)
    if model.mup_base_head_size is not None:
        tree["mup_base_head_size"] = _scaled(model.mup_base_head_size, HEAD_SIZE, model.head_size)
    if model.moe is not None:
        tree["moe"] |= _small_experts(model.moe, real, small, wide)
    if model.layer_shapes is not None:
        tree["layer_shapes"] = _small_layers(model, ModelConfig.from_tree(tree | {"layer_shapes": None}), small)
        tree["num_layers"] = sum(run["layers"] for run in tree["layer_shapes"])
    return tree


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _scaled(base: int, small: int, real: int) -> int:
    return max(1, round(base * small / real))


def _small_shape(model: ModelConfig, real: Axes, small: Axes) -> LayerShape:
    """Return heads and groups of most layers; the feed-forward width follows from elsewhere."""
    groups = small.tensor * (2 if model.query_groups // real.tensor > 1 else 1)
    if model.query_groups > 1:
        groups = max(2, groups)
    heads = groups if model.num_attention_heads == model.query_groups else 2 * groups
    return LayerShape(heads, groups, 0)


def _hidden_size(model: ModelConfig, heads: int) -> int:
    """Return a width that has to the heads' the relation that the model's has: equal, a multiple, or neither."""
    real = model.num_attention_heads
    if model.kv_channels is None or model.hidden_size == real * model.kv_channels:
        return heads * HEAD_SIZE
    if model.hidden_size % real:
        return heads * HEAD_SIZE + heads // 2
    return heads * (HEAD_SIZE // 2 if model.hidden_size < real * model.kv_channels else 2 * HEAD_SIZE)


def _window(model: ModelConfig, seq_length: int) -> int | None:
    window = model.local_attention_window
    return None if window is None else max(1, window * seq_length // model.seq_length)


def _small_experts(moe: MoeConfig, real: Axes, small: Axes, wide: int) -> dict[str, Any]:
    taken = min(2, moe.experts_per_token)
    number = small.tensor * small.expert * (2 if moe.num_experts > real.tensor * real.expert else 1)
    while number < taken or (number == taken and moe.num_experts > moe.experts_per_token):
        number *= 2
    return {
        "num_experts": number,
        "experts_per_token": taken,
        "ffn_hidden_size": None if moe.ffn_hidden_size is None else wide // 2,
        "every_n_layers": min(2, moe.every_n_layers),
    }


def _small_layers(model: ModelConfig, small_model: ModelConfig, small: Axes) -> list[dict[str, Any]]:
    """Return one layer for each entry of ``model.layer_shapes``; the last one is repeated to fill the stages."""
    assert model.layer_shapes is not None, "a model with one shape of layers"
    runs = [_small_run(run, model, small_model.common_shape, small.tensor) for run in model.layer_shapes]
    runs[-1]["layers"] += -len(runs) % small.pipeline
    return runs


def _small_run(run: LayerShapes, model: ModelConfig, common: LayerShape, tensor: int) -> dict[str, Any]:
    """Return a small ``run``: what is 0 or like most layers stays so, what is not is not."""
    tree: dict[str, Any] = {"layers": 1}
    shape = run.shape(model.common_shape, is_grouped=model.num_query_groups is not None)
    heads = common.heads
    if run.num_attention_heads is not None:
        if run.num_attention_heads != model.num_attention_heads:
            heads = 2 * common.heads if shape.heads else 0
        tree["num_attention_heads"] = heads
    if run.num_query_groups is not None:
        is_common = run.num_query_groups == model.query_groups
        grouped = common.groups if is_common else 0 if not shape.groups else tensor
        tree["num_query_groups"] = heads if shape.groups == shape.heads else grouped
    if run.ffn_hidden_size is not None:
        other = common.ffn + HEAD_SIZE * tensor if run.ffn_hidden_size else 0
        tree["ffn_hidden_size"] = common.ffn if run.ffn_hidden_size == model.ffn_size else other
    return tree
