"""Parallel axes of a rehearsal: every axis that a job splits is split, over as few ranks as that takes."""

from dataclasses import astuple, dataclass, replace
from typing import Self

from gptdist.config.run import RunConfig
from gptdist.errors import ConfigError

MAX_RANKS = 16
"""Of a rehearsal: two of each of the four axes. More show nothing new, and a machine pays for each with memory."""

ORDER = ("tensor", "data", "pipeline", "context")
"""Which axes are kept where ranks are too few for all, the first ones first."""

_KEYS = {
    "tensor": "parallel.tensor_parallel_size",
    "data": "data-parallel size",
    "pipeline": "parallel.pipeline_parallel_size",
    "context": "parallel.context_parallel_size",
}


@dataclass(frozen=True)
class Axes:
    """Ranks along each axis; those of experts are among the data-parallel ones."""

    tensor: int = 1
    data: int = 1
    pipeline: int = 1
    context: int = 1
    expert: int = 1

    @classmethod
    def of(cls, config: RunConfig, world_size: int) -> Self:
        """Return those of ``config`` on ``world_size`` ranks."""
        parallel = config.parallel
        return cls(
            tensor=parallel.tensor_parallel_size,
            data=parallel.data_parallel_size(world_size),
            pipeline=parallel.pipeline_parallel_size,
            context=parallel.context_parallel_size,
            expert=parallel.expert_parallel_size,
        )

    @property
    def ranks(self) -> int:
        """Ranks in all."""
        tensor, data, pipeline, context, _ = astuple(self)
        return int(tensor * data * pipeline * context)

    def smallest(self) -> "Axes":
        """Return the axes of the fewest ranks on which each axis is split that is split here."""
        return Axes(*(min(size, 2) for size in astuple(self)))

    def left_out(self, small: "Axes") -> list[str]:
        """Return a line for each axis that is split here and not in ``small``."""
        advice = f"--ranks {self.smallest().ranks} splits every axis"
        lines = [
            f"{key}: {getattr(self, axis)} becomes 1; {advice}"
            for axis, key in _KEYS.items()
            if getattr(self, axis) > 1 and getattr(small, axis) == 1
        ]
        if self.expert > small.expert == 1:
            lines.append(f"parallel.expert_parallel_size: {self.expert} becomes 1; {advice}")
        return lines


def small_axes(real: Axes, ranks: int | None) -> Axes:
    """Return the axes of a rehearsal of ``real`` on so many ``ranks``; default: as many as it takes.

    Raises:
        ConfigError: so many ranks cannot be laid out like these.
    """
    if ranks is None:
        return real.smallest()
    found = _fitted(real, ranks) if 1 <= ranks <= MAX_RANKS else None
    if found is None:
        legal = [number for number in range(1, MAX_RANKS + 1) if _fitted(real, number) is not None]
        raise ConfigError([f"--ranks: {ranks} are no small copy of the job's {real.ranks}; use one of {legal}"])
    return found


def _fitted(real: Axes, ranks: int) -> Axes | None:
    """Return axes of exactly ``ranks``, none longer than in ``real``; None where there are none."""
    sizes, rest = dict.fromkeys(ORDER, 1), ranks
    for axis in ORDER:
        if getattr(real, axis) > 1 and rest % 2 == 0:
            sizes[axis], rest = 2, rest // 2
    if real.data > 1 and sizes["data"] * rest <= real.data:
        sizes["data"], rest = sizes["data"] * rest, 1
    for axis in ORDER:
        while rest % 2 == 0 and 1 < 2 * sizes[axis] <= getattr(real, axis):
            sizes[axis], rest = 2 * sizes[axis], rest // 2
    if rest > 1:
        return None
    expert = 2 if real.expert > 1 and sizes["data"] % 2 == 0 else 1
    return replace(Axes(**sizes), expert=expert)
