"""What a shape would cost in loss, from cuts along one size at a time."""

import logging
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Self

from gptdist.compress.prune.search import Candidate
from gptdist.compress.prune.shape import Shape
from gptdist.config.model import ModelConfig

logger = logging.getLogger(__name__)

MEASURED_SHARES = (0.75, 0.5, 0.25)
"""Of a size that are kept where its loss is measured."""

_OF_AXIS = {"ffn": ("ffn",), "hidden": ("hidden",), "heads": ("groups", "heads"), "layers": ("layers",)}


@dataclass(frozen=True)
class Curve:
    """How much the loss grows when one size shrinks."""

    kept: tuple[float, ...]
    """Shares of the size, rising to 1."""

    increases: tuple[float, ...]
    """Nats a token above the whole model's loss."""

    def at(self, share: float) -> float:
        """Return the increase at a share kept: on straight lines between what was measured, and on below it."""
        right = min(max(1, bisect_right(self.kept, share)), len(self.kept) - 1)
        low, high = self.kept[right - 1], self.kept[right]
        slope = (self.increases[right] - self.increases[right - 1]) / (high - low)
        return self.increases[right - 1] + slope * (share - low)


@dataclass(frozen=True)
class Prediction:
    """Losses of cuts along one size at a time, which are added up for a shape that is smaller in several."""

    loss: float
    """Of the whole model, nats a token."""

    whole: Shape
    curves: Mapping[str, Curve] = field(default_factory=dict)

    @classmethod
    def measured(cls, config: ModelConfig, axes: Sequence[str], loss_of: Callable[[Shape], float]) -> Self:
        """Measure the whole model, and cuts along each of ``axes``."""
        whole = Shape.of(config)
        loss, curves = loss_of(whole), {}
        for name in (size for axis in axes for size in _OF_AXIS[axis]):
            size = getattr(whole, name)
            kept = sorted({max(1, round(share * size)) for share in MEASURED_SHARES} - {size})
            if kept:
                increases = [loss_of(Shape(**{name: count})) - loss for count in kept]
                shares = [count / size for count in kept]
                logger.info("%s to %s of %d: loss grows by %s", name, kept, size, [f"{one:.3f}" for one in increases])
                curves[name] = Curve((*shares, 1.0), (*increases, 0.0))
        return cls(loss, whole, curves)

    def of(self, shape: Shape) -> float:
        """Return the predicted loss of a shape, nats a token."""
        total = self.loss
        for size in fields(shape):
            kept, whole = getattr(shape, size.name), getattr(self.whole, size.name)
            if size.name in self.curves and kept is not None:
                total += self.curves[size.name].at(kept / whole)
        return total


@dataclass(frozen=True)
class Ranked:
    """A candidate and its losses, nats a token."""

    candidate: Candidate
    predicted: float
    measured: float | None


def ranked(
    candidates: Sequence[Candidate], prediction: Prediction, loss_of: Callable[[Shape], float], count: int
) -> list[Ranked]:
    """Return the ``count`` best by prediction, the best first: by measured loss where there are several.

    Of those that are predicted alike, the larger ones.
    """
    order = sorted(candidates, key=lambda one: (prediction.of(one.shape), -one.parameters))[:count]
    if len(order) == 1:
        return [Ranked(order[0], prediction.of(order[0].shape), None)]
    found = [Ranked(one, prediction.of(one.shape), loss_of(one.shape)) for one in order]
    return sorted(found, key=lambda one: one.measured or 0.0)
