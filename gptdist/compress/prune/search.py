"""Legal shapes of a model that have a given number of parameters.

Letters: L layers, h hidden, g query groups, f feed-forward width.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gptdist.compress.prune.shape import Shape
from gptdist.compress.prune.slicing import layer_problems, resized
from gptdist.config.exportable import export_problems
from gptdist.config.layer_shapes import LayerShape
from gptdist.config.model import ModelConfig
from gptdist.errors import ConfigError
from gptdist.model.arithmetic import num_parameters

AXES = ("ffn", "hidden", "heads", "layers")
DEFAULT_AXES = ("ffn", "hidden", "heads")
"""Width alone: at equal size it is better than depth after training on (arXiv 2408.11796, Minitron in practice)."""

REACH = 0.05
"""A shape has the number of parameters that is asked for if it has at most this share fewer, and none more."""

WIDTHS = 32
"""Hidden widths that are tried, besides those that whole heads fill."""


@dataclass(frozen=True)
class SearchOptions:
    """Which shapes are looked at."""

    target: str
    """Parameters of the smaller model: their number, or their share of the whole model's, below 1."""

    axes: tuple[str, ...] | None = None
    """Sizes that may change; default: ``DEFAULT_AXES``, without what the model does not allow."""

    multiple_of: int = 8
    """Of which new hidden and feed-forward widths are multiples."""

    candidates: int = 8
    """Shapes whose loss is measured, the best by prediction; 1 takes the prediction's word."""

    def value_problems(self) -> list[str]:
        """Return every value that cannot be, of any model."""
        bad = []
        if self._number() is None:
            bad.append(
                f"--target-parameters: must be a share above 0 and below 1, or a number of parameters, "
                f"got {self.target}"
            )
        bad += [
            f"--{name}: must be at least 1, got {value}"
            for name, value in (("multiple-of", self.multiple_of), ("candidates", self.candidates))
            if value < 1
        ]
        if self.axes == ():
            bad.append(f"--axes: names none; name some of {', '.join(AXES)}")
        unknown = [name for name in self.axes or () if name not in AXES]
        return bad + [f"--axes: {name} is none of {', '.join(AXES)}; name some of these" for name in unknown]

    def problems(self, config: ModelConfig) -> list[str]:
        """Return every value that cannot be, of any model and of this one."""
        bad = self.value_problems()
        bad += [f"--axes: {problem}" for problem in layer_problems(config) if "layers" in (self.axes or ())]
        if config.moe is not None and "ffn" in (self.axes or ()):
            bad.append("--axes: ffn: not done for models with experts; leave it out")
        if config.layer_shapes is not None:
            bad.append("--target-parameters: not done where model.layer_shapes differ; name sizes, such as --ffn")
        whole = num_parameters(config)
        if not bad and self.parameters(config) >= whole:
            bad.append(f"--target-parameters: {self.target} is not below the model's {whole:,}; ask for fewer")
        return bad

    def chosen_axes(self, config: ModelConfig) -> tuple[str, ...]:
        """Return the sizes that may change."""
        if self.axes is not None:
            return self.axes
        return DEFAULT_AXES if config.moe is None else tuple(axis for axis in DEFAULT_AXES if axis != "ffn")

    def parameters(self, config: ModelConfig) -> int:
        """Return how many parameters the smaller model may have."""
        number = self._number()
        assert number is not None, "checked before"
        return int(number * num_parameters(config)) if number < 1 else int(number)

    def _number(self) -> float | None:
        try:
            number = float(self.target.replace("_", "").replace(",", ""))
        except ValueError:
            return None
        is_share = 0.0 < number < 1.0
        return number if is_share or (number > 1.0 and number.is_integer()) else None


@dataclass(frozen=True)
class Layout:
    """Ranks that have to share the smaller model evenly: those of the run it comes from."""

    tensor: int = 1
    pipeline: int = 1

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Layout":
        """Return that of a resolved run config; of one that is no run's, a single rank."""
        parallel = config.get("parallel", {})
        return cls(parallel.get("tensor_parallel_size", 1), parallel.get("pipeline_parallel_size", 1))

    def __str__(self) -> str:
        """Return what it asks of a shape, to be put behind its sizes."""
        sizes = {"tensor": self.tensor, "pipeline": self.pipeline}
        return "".join(f", for {name} parallel {size}" for name, size in sizes.items() if size > 1)


@dataclass(frozen=True)
class Candidate:
    """A legal shape."""

    shape: Shape
    parameters: int


def legal_shapes(config: ModelConfig, options: SearchOptions, layout: Layout) -> list[Candidate]:
    """Return legal shapes of as many parameters as asked for, or up to ``REACH`` fewer; the largest first.

    Of shapes that differ in the feed-forward width alone, the widest. A model with a counterpart in other tools keeps
    one, and the shapes can be trained in the run's layout.

    Raises:
        ConfigError: an option is out of its range, or no legal shape has so many parameters: names the nearest.
    """
    if problems := options.problems(config):
        raise ConfigError(problems)
    target = options.parameters(config)
    found = list(_reachable(config, options, layout, target))
    fitting = [one for one in found if (1 - REACH) * target <= one.parameters <= target]
    if not fitting:
        axes = ", ".join(options.chosen_axes(config))
        raise ConfigError([_unreachable(found, target, f"{axes}{layout}")])
    return sorted(fitting, key=lambda one: -one.parameters)


def _unreachable(found: Sequence[Candidate], target: int, along: str) -> str:
    where = f"--target-parameters: {target:,}"
    if not found:
        return f"{where}: no smaller shape along {along} is legal; name more --axes, or sizes"
    near = min(found, key=lambda one: abs(one.parameters - target))
    return (
        f"{where}: no legal shape along {along} has that many, or up to {REACH:.0%} fewer; the nearest has "
        f"{near.parameters:,} ({near.shape}): ask for that, name more --axes, or lower --multiple-of"
    )


def _reachable(config: ModelConfig, options: SearchOptions, layout: Layout, target: int) -> Iterator[Candidate]:
    """Yield every combination of the other sizes with the widest feed-forward part below the target, and the next."""
    axes, whole, neurons = options.chosen_axes(config), Shape.of(config), config.common_shape.ffn
    step = math.lcm(options.multiple_of, layout.tensor)
    layers = range(layout.pipeline, config.num_layers + 1, layout.pipeline) if "layers" in axes else [config.num_layers]
    for hidden, groups, heads in _widths(config, axes, options.multiple_of, layout):
        count = _Count.of(config, hidden, groups, heads)
        for depth in layers:
            for ffn in _ffn_widths(count, depth, target, neurons, step) if "ffn" in axes else [neurons]:
                shape = Shape(depth, hidden, groups, heads, ffn)
                if shape != whole:
                    yield Candidate(shape, count.parameters(depth, ffn))


def _ffn_widths(count: "_Count", depth: int, target: int, whole: int, step: int) -> Iterator[int]:
    """Yield the widest legal width that keeps the target, and the next above; the narrowest where none keeps it."""
    room = (target - count.outer - depth * count.of_layer) // (depth * count.of_neuron)
    if room >= whole:
        yield whole
        return
    widest = room // step * step
    yield from (width for width in (widest, widest + step) if step <= width <= whole)
    if widest < step:
        yield min(step, whole)


def _widths(config: ModelConfig, axes: Sequence[str], multiple: int, layout: Layout) -> Iterator[tuple[int, int, int]]:
    """Yield legal (hidden, query groups, heads of a group), the model's own among them."""
    common, exports = config.common_shape, not export_problems(config)
    most = common.heads // common.groups
    groups = [n for n in range(1, common.groups + 1) if n % layout.tensor == 0] if "heads" in axes else [common.groups]
    each = range(1, most + 1) if "heads" in axes else [most]
    for hidden in _hidden_sizes(config, multiple) if "hidden" in axes else [config.hidden_size]:
        for number in groups:
            for heads in each:
                child = _resized(config, 1, hidden, LayerShape(number * heads, number, common.ffn))
                if child is not None and not (exports and export_problems(child)):
                    yield hidden, number, heads


def _hidden_sizes(config: ModelConfig, multiple: int) -> list[int]:
    whole, size = config.hidden_size, config.head_size
    step = multiple * max(1, math.ceil(whole / (multiple * WIDTHS)))
    filled = range(size, whole, size) if size * config.num_attention_heads == whole else range(0)
    return sorted({whole, *range(step, whole, step), *(width for width in filled if width % multiple == 0)})


def _resized(config: ModelConfig, layers: int, hidden: int, shape: LayerShape) -> ModelConfig | None:
    """Return the config with these sizes, or none where no model has them."""
    every = 1 if config.moe is None else config.moe.every_n_layers
    try:
        return resized(config, [shape] * (layers * every), hidden)
    except ConfigError:
        return None


@dataclass(frozen=True)
class _Count:
    """Parameters of shapes that differ in layers and feed-forward width alone: outer + L (of_layer + f of_neuron)."""

    outer: int
    of_layer: int
    of_neuron: int = field(default=0)

    @classmethod
    def of(cls, config: ModelConfig, hidden: int, groups: int, heads: int) -> "_Count":
        """Count small models, which is exact: each size adds as much every time."""
        if config.moe is not None and config.moe.every_n_layers > 1:  # neither layers nor neurons can go
            shape = LayerShape(groups * heads, groups, config.ffn_size)
            return cls(num_parameters(resized(config, [shape] * config.num_layers, hidden)), 0)
        one, wider, two = (
            num_parameters(resized(config, [LayerShape(groups * heads, groups, ffn)] * layers, hidden))
            for layers, ffn in ((1, 1), (1, 2), (2, 1))
        )
        return cls(2 * one - two, two - wider, wider - one)

    def parameters(self, layers: int, ffn: int) -> int:
        """Return the parameters of a model with so many layers of that width."""
        return self.outer + layers * (self.of_layer + ffn * self.of_neuron)
