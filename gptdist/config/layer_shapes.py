"""Layers that differ in shape, as structured pruning leaves them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gptdist.config.section import Section


@dataclass(frozen=True)
class LayerShape:
    """What one layer is made of; a part with size 0 is not there."""

    heads: int
    """Query heads."""

    groups: int
    """Key and value heads."""

    ffn: int
    """Width of the feed-forward part."""


class LayerShapes(Section):
    """The shape of some layers that follow each other; what is unset is the model's."""

    layers: int = 1
    """How many layers have it."""

    ffn_hidden_size: int | None = None
    """Width of the feed-forward part; 0 leaves it out, and its norm."""

    num_attention_heads: int | None = None
    """Query heads, each of the model's head size; 0 leaves attention out, and its norm."""

    num_query_groups: int | None = None
    """Key and value heads."""

    def shape(self, model: LayerShape, *, is_grouped: bool) -> LayerShape:
        """Return it with what is unset taken from ``model``'s; where that ``is_grouped`` not, each head has its own."""
        heads = model.heads if self.num_attention_heads is None else self.num_attention_heads
        groups = model.groups if is_grouped and heads else heads
        return LayerShape(
            heads=heads,
            groups=groups if self.num_query_groups is None else self.num_query_groups,
            ffn=model.ffn if self.ffn_hidden_size is None else self.ffn_hidden_size,
        )


def shape_problems(
    runs: Sequence[LayerShapes], model: LayerShape, *, is_grouped: bool, num_layers: int, has_experts: bool
) -> list[str]:
    """Return every reason why layers cannot have these shapes."""
    bad: list[str] = []
    for index, run in enumerate(runs):
        bad += _run_problems(f"model.layer_shapes[{index}]", run, run.shape(model, is_grouped=is_grouped))
    count = sum(run.layers for run in runs)
    if count != num_layers:
        bad.append(
            f"model.layer_shapes: {count} layers where model.num_layers is {num_layers}; "
            f"give {num_layers} in all, counting each entry's layers"
        )
    if has_experts:
        bad.append("model.layer_shapes: not done for models with experts; remove it, or model.moe")
    return bad


def _run_problems(where: str, run: LayerShapes, shape: LayerShape) -> Iterator[str]:
    if run.layers < 1:
        yield f"{where}.layers: must be at least 1, got {run.layers}"
    too_small = [
        f"{where}.{name}: must be at least 0, got {value}"
        for name, value in run.tree().items()
        if name != "layers" and value is not None and value < 0
    ]
    if too_small:
        yield from too_small
    elif shape.heads == shape.ffn == 0:
        yield f"{where}: neither attention nor feed-forward part; remove it, and lower model.num_layers"
    elif shape.heads == 0 and shape.groups:
        yield f"{where}.num_query_groups: {shape.groups} without attention heads; remove it"
    elif shape.heads and (shape.groups == 0 or shape.heads % shape.groups):
        legal = [number for number in range(1, shape.heads + 1) if shape.heads % number == 0]
        yield (
            f"{where}.num_query_groups ({shape.groups}) does not divide num_attention_heads ({shape.heads}); "
            f"use one of {legal}"
        )


def split_sizes(runs: Sequence[LayerShapes] | None, model: LayerShape, *, is_grouped: bool) -> dict[str, int]:
    """Return the sizes that tensor parallelism must divide, by the keys of the model section that set them."""
    found = {}
    for index, run in enumerate([LayerShapes()] if runs is None else runs):
        shape, here = run.shape(model, is_grouped=is_grouped), f"layer_shapes[{index}]."
        own_groups = run.num_query_groups is not None or run.num_attention_heads is not None
        own_heads, own_ffn = run.num_attention_heads is not None, run.ffn_hidden_size is not None
        found[f"{here if own_heads else ''}num_attention_heads"] = shape.heads
        found[f"{here if own_groups else ''}num_query_groups"] = shape.groups
        found[f"{here if own_ffn else ''}ffn_hidden_size"] = shape.ffn
    return found
