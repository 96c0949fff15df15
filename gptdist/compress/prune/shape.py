"""The shape that a model is cut to, and which units stay."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from gptdist.compress.prune.importance import Importance
from gptdist.compress.prune.slicing import Kept, KeptLayer, everything, layer_problems
from gptdist.config.layer_shapes import LayerShape
from gptdist.config.model import ModelConfig
from gptdist.errors import ConfigError


@dataclass(frozen=True)
class Shape:
    """Sizes of a model; what is unset stays as it is."""

    layers: int | None = None
    hidden: int | None = None
    groups: int | None = None
    """Query groups of a layer."""

    heads: int | None = None
    """Query heads of a group."""

    ffn: int | None = None
    """Feed-forward neurons of a layer."""

    @classmethod
    def of(cls, config: ModelConfig) -> Self:
        """Return the sizes of a model whose layers are alike."""
        common = config.common_shape
        each = common.heads // common.groups
        return cls(config.num_layers, config.hidden_size, common.groups, each, common.ffn)

    def layer_shapes(self, config: ModelConfig) -> list[LayerShape]:
        """Return what the layers of ``config`` will be made of, where all of them are alike."""
        whole = config.common_shape
        groups = self.groups or whole.groups
        each = self.heads or whole.heads // whole.groups
        return [LayerShape(groups * each, groups, self.ffn or whole.ffn)] * (self.layers or config.num_layers)

    def __str__(self) -> str:
        """Return the sizes that are set, in words."""
        names = {"layers": self.layers, "hidden": self.hidden, "query groups": self.groups}
        names |= {"heads a group": self.heads, "ffn": self.ffn}
        return ", ".join(f"{name} {value}" for name, value in names.items() if value is not None)


@dataclass(frozen=True)
class RequestedShape:
    """Sizes as a user names them; what is unset stays as it is."""

    layers: int | None = None
    hidden: int | None = None
    heads: int | None = None
    """Query heads of a layer, in all."""

    query_groups: int | None = None
    ffn: int | None = None

    def shape(self, config: ModelConfig) -> Shape:
        """Return what is asked of ``config``'s model.

        Raises:
            ConfigError: nothing is cut, or something cannot be; all problems at once.
        """
        if problems := [*self._out_of_range(config), *self._not_done(config)]:
            raise ConfigError(problems)
        common = config.common_shape
        each = common.heads // common.groups
        groups = self.query_groups or (self.heads if each == 1 else None)
        each_asked = None if self.heads is None else self.heads // (groups or common.groups)
        shape = Shape(self.layers, self.hidden, groups, each_asked, self.ffn)
        if config.layer_shapes is None and _filled(shape, config) == Shape.of(config):
            raise ConfigError([f"{shape}: is what the model has, so that nothing is cut; name smaller sizes"])
        return shape

    def _out_of_range(self, config: ModelConfig) -> Iterator[str]:
        common = config.common_shape
        whole = {"layers": config.num_layers, "hidden": config.hidden_size, "heads": common.heads}
        whole |= {"query_groups": common.groups, "ffn": max(shape.ffn for shape in config.shapes())}
        asked = {name: getattr(self, name) for name in whole}
        if all(value is None for value in asked.values()):
            yield f"--{', --'.join(name.replace('_', '-') for name in whole)}: none is given; name what to cut"
        for name, value in asked.items():
            if value is not None and not 1 <= value <= whole[name]:
                yield f"--{name.replace('_', '-')}: must be from 1 to {whole[name]}, which the model has, got {value}"
        if self.heads is not None and self.heads >= 1:
            is_grouped = common.heads != common.groups
            groups = self.query_groups or (common.groups if is_grouped else self.heads)
            if groups >= 1 and self.heads % groups:
                legal = [groups * each for each in range(1, common.heads // common.groups + 1)]
                yield f"--heads ({self.heads}): must be as many in each of {groups} query groups; use one of {legal}"
            elif self.heads // max(1, groups) > common.heads // common.groups:
                yield (
                    f"--heads ({self.heads}): {groups} query groups have {common.heads // common.groups} heads each; "
                    f"use at most {groups * (common.heads // common.groups)}"
                )

    def _not_done(self, config: ModelConfig) -> Iterator[str]:
        if config.layer_shapes is not None and (self.heads is not None or self.query_groups is not None):
            yield "--heads, --query-groups: not done where model.layer_shapes differ; cut other sizes"
        if config.moe is not None and self.ffn is not None:
            yield "--ffn: not done for models with experts; cut other sizes"
        if self.layers is not None and self.layers < config.num_layers:
            yield from layer_problems(config)


def _filled(shape: Shape, config: ModelConfig) -> Shape:
    whole = Shape.of(config)
    return Shape(**{name: value or getattr(whole, name) for name, value in vars(shape).items()})


def chosen_units(config: ModelConfig, importance: Importance, shape: Shape) -> Kept:
    """Return the most important units, as many as ``shape`` has of each kind; of a smaller layer all.

    A query group matters as much as its heads together.
    """
    whole = everything(config)
    layers = _best(importance.layers, shape.layers)
    kept = [_chosen_of_layer(config, importance, shape, whole.layers[number]) for number in layers]
    return Kept(tuple(kept), _best(importance.hidden, shape.hidden))


def _chosen_of_layer(config: ModelConfig, importance: Importance, shape: Shape, whole: KeptLayer) -> KeptLayer:
    number = whole.layer
    kept = whole
    if shape.ffn is not None and not config.has_experts(number):
        kept = replace(kept, ffn=_best(importance.ffn[number], shape.ffn))
    if whole.groups and (shape.groups is not None or shape.heads is not None):
        by_group = importance.heads[number].unflatten(0, (len(whole.groups), -1))
        groups = _best(by_group.sum(1), shape.groups)
        each = by_group.shape[1]
        heads = tuple(group * each + head for group in groups for head in _best(by_group[group], shape.heads))
        kept = replace(kept, groups=groups, heads=heads)
    return kept


def _best(scores: Tensor, count: int | None) -> tuple[int, ...]:
    """Return the places of the highest scores, rising; of equal ones the first."""
    order = torch.sort(scores, descending=True, stable=True).indices
    return tuple(sorted(order[:count].tolist()))
