"""Cut units out of a model: pure functions on its logical tensors, one tensor at a time.

Units are feed-forward neurons, query heads, query groups (with their heads), channels of the residual stream, layers.
What is cut out without a trace: the smaller model computes what the whole one does with those units' contributions
taken as zero. Channels are the exception, for norms divide by statistics of all of them.

Letters: h hidden, n heads, g query groups, r = n / g, d head size, f feed-forward width.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from gptdist.config.layer_shapes import LayerShape
from gptdist.config.model import ModelConfig
from gptdist.errors import ConfigError
from gptdist.model.hf_names import logical_shapes
from gptdist.model.parameters import is_expert, layer_of

_LAYERS = "decoder.layers."


@dataclass(frozen=True)
class KeptLayer:
    """What stays of one layer, as rising numbers of the whole model's units; a part without any is left out."""

    layer: int
    """Its number in the whole model."""

    groups: tuple[int, ...]
    """Query groups: key and value heads."""

    heads: tuple[int, ...]
    """Query heads, counted over all groups; of each kept group as many."""

    ffn: tuple[int, ...]
    """Feed-forward neurons; of a layer with experts nothing is cut there."""

    @property
    def shape(self) -> LayerShape:
        """What the layer will be made of."""
        return LayerShape(len(self.heads), len(self.groups), len(self.ffn))


@dataclass(frozen=True)
class Kept:
    """What stays of a model."""

    layers: tuple[KeptLayer, ...]
    hidden: tuple[int, ...]
    """Channels of the residual stream."""


def everything(config: ModelConfig) -> Kept:
    """Return all units of a model, to be narrowed with ``dataclasses.replace``."""
    layers = (
        KeptLayer(number, *(tuple(range(size)) for size in (shape.groups, shape.heads, shape.ffn)))
        for number, shape in enumerate(config.shapes())
    )
    return Kept(tuple(layers), tuple(range(config.hidden_size)))


def pruned_config(config: ModelConfig, kept: Kept) -> ModelConfig:
    """Return the config of what stays; where all layers are alike, one without ``layer_shapes``.

    Raises:
        ConfigError: no model has this shape, or this model's layers are not all of one kind, so that none can go.
    """
    problems = list(_uncuttable(config, kept))
    if problems:
        raise ConfigError(problems)
    return resized(config, [layer.shape for layer in kept.layers], len(kept.hidden))


def resized(config: ModelConfig, shapes: Sequence[LayerShape], hidden_size: int) -> ModelConfig:
    """Return the config with other layers and another width; heads keep their size, experts theirs.

    Raises:
        ConfigError: no model has this shape.
    """
    is_uniform = len(set(shapes)) == 1 and bool(shapes[0].heads and shapes[0].ffn)
    common = shapes[0] if is_uniform else config.common_shape
    tree: dict[str, Any] = config.tree() | {
        "num_layers": len(shapes),
        "hidden_size": hidden_size,
        "num_attention_heads": common.heads,
        "num_query_groups": None if common.groups == common.heads else common.groups,
        "ffn_hidden_size": common.ffn,
        "layer_shapes": None if is_uniform else _runs(shapes),
    }
    is_default = hidden_size == common.heads * config.head_size
    tree["kv_channels"] = None if is_default else config.head_size
    if config.moe is not None and config.moe.ffn_hidden_size is None:
        tree["moe"] = config.moe.tree() | {"ffn_hidden_size": config.expert_size}
    child = ModelConfig.from_tree(tree, origin="pruned model")
    if problems := child.problems():
        raise ConfigError(f"pruned model: {problem}" for problem in problems)
    return child


def pruned_tensors(config: ModelConfig, kept: Kept, get: Callable[[str], Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield every logical tensor of the smaller model, in the order of its ``logical_shapes``.

    muP divides logits by the width: what that changes goes into the last norm.

    Args:
        config: the whole model.
        kept: what stays.
        get: returns the whole model's logical tensor of a name.

    Raises:
        ConfigError: as ``pruned_config``.
    """
    child = pruned_config(config, kept)
    logits = child.width_multiplier / config.width_multiplier
    for name in logical_shapes(child):
        if not name.startswith(_LAYERS):
            found = _narrowed(get(name), {-1: kept.hidden})
            yield name, found * logits if logits != 1.0 and "final_layernorm" in name else found
            continue
        layer = kept.layers[layer_of(name)]
        inner = name.removeprefix(_LAYERS).partition(".")[2]
        yield name, _narrowed(get(f"{_LAYERS}{layer.layer}.{inner}"), _cuts(config, layer, kept.hidden, name))


def _narrowed(whole: Tensor, cuts: dict[int, Sequence[int]]) -> Tensor:
    for dim, units in cuts.items():
        if len(units) != whole.shape[dim]:
            whole = whole.index_select(dim, torch.tensor(units, device=whole.device))
    return whole


def _cuts(config: ModelConfig, layer: KeptLayer, hidden: Sequence[int], name: str) -> dict[int, Sequence[int]]:
    """Return what stays of a layer's tensor, by dimension counted from the last."""
    module, _, part = name.rpartition(".")
    rows: Sequence[int] | None = hidden  # of matrices that write into the residual stream, and of norms
    columns: Sequence[int] | None = hidden  # of matrices that read it
    match module.rpartition(".")[2]:
        case "linear_qkv":
            rows = _joined_rows(config, layer)
        case "linear_proj":
            columns = _spread(layer.heads, config.head_size)
        case "linear_fc1":
            rows = None if is_expert(name) else _stacked(config, layer)
        case "linear_fc2":
            columns = None if is_expert(name) else layer.ffn
        case "router" | "q_layernorm" | "k_layernorm":
            rows = None
        case other:
            assert other in ("input_layernorm", "pre_mlp_layernorm"), f"{name}: no rule says what of it a unit owns"
    is_matrix = part == "weight" and "layernorm" not in module
    cuts = {-2: rows, -1: columns} if is_matrix else {-1: rows}
    return {dim: units for dim, units in cuts.items() if units is not None}


def _spread(units: Sequence[int], size: int) -> list[int]:
    """Return the rows of units that have ``size`` rows each."""
    return [unit * size + row for unit in units for row in range(size)]


def _joined_rows(config: ModelConfig, layer: KeptLayer) -> list[int]:
    """Return rows of the fused queries, keys and values: [q_0 … q_(r-1), k, v] for each group, d rows each."""
    whole = config.shapes()[layer.layer]
    each = whole.heads // whole.groups
    blocks = []
    for group in layer.groups:
        first = group * (each + 2)
        blocks += [first + head - group * each for head in layer.heads if head // each == group]
        blocks += [first + each, first + each + 1]
    return _spread(blocks, config.head_size)


def _stacked(config: ModelConfig, layer: KeptLayer) -> list[int]:
    """Return rows of the first feed-forward matrix; a gated one holds the gates above the values."""
    gates = config.shapes()[layer.layer].ffn if config.is_gated else 0
    return [*layer.ffn, *(gates + unit for unit in layer.ffn)] if gates else list(layer.ffn)


def _runs(shapes: Sequence[LayerShape]) -> list[dict[str, int]]:
    """Return ``layer_shapes`` that say everything."""
    return [
        {
            "layers": len(list(run)),
            "num_attention_heads": shape.heads,
            "num_query_groups": shape.groups,
            "ffn_hidden_size": shape.ffn,
        }
        for shape, run in groupby(shapes)
    ]


def _uncuttable(config: ModelConfig, kept: Kept) -> Iterator[str]:
    """Yield why this model cannot be cut so."""
    for layer in kept.layers:
        whole = config.shapes()[layer.layer]
        each = max(1, whole.heads // max(1, whole.groups))
        counts = Counter(head // each for head in layer.heads)
        of_groups = [counts[group] for group in layer.groups]
        if sum(of_groups) != len(layer.heads) or len(set(of_groups)) > 1:
            yield (
                f"layer {layer.layer}: {len(layer.heads)} heads over groups as {of_groups}; "
                f"keep as many heads of each kept group, and none of the others"
            )
    if len(kept.layers) < config.num_layers:
        yield from layer_problems(config)


def layer_problems(config: ModelConfig) -> list[str]:
    """Return why no whole layer of this model can go: those behind it would become layers of another kind."""
    bad = []
    if config.local_attention_window is not None:
        bad.append("model.local_attention_window: every second layer has it, so that no layer can go; keep all layers")
    if config.moe is not None and config.moe.every_n_layers > 1:
        bad.append(
            f"model.moe.every_n_layers ({config.moe.every_n_layers}): not every layer has experts, "
            f"so that no layer can go; keep all layers"
        )
    return bad
