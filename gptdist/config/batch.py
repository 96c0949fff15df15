"""How many sequences a step takes: one size, or a ramp of sizes that leads to it."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from gptdist.config.section import Section
from gptdist.config.seq_length import LengthStage, length_problems
from gptdist.config.stage_end import EndingStage, ending_problems


class RampStage(EndingStage):
    """One stage of a ramp: every step that begins before its bound takes its size.

    The step that reaches the bound is whole; the next one has the next size.
    """

    global_batch_size: int
    """Sequences an optimizer step, over all replicas."""

    increment: int | None = None
    """Unset: the size holds to the bound. Else it grows by this many sequences at a time, each size for the same number
    of samples, so that the bound leads on to the next stage's size."""

    def problems(self, where: str, following: int) -> list[str]:
        """Return every value out of its range; ``where`` is its place in the config, ``following`` the next size."""
        size, step = self.global_batch_size, self.increment
        bad = []
        if size < 1:
            bad.append(f"{where}.global_batch_size: must be at least 1, got {size}")
        elif step is not None and step < 1:
            bad.append(f"{where}.increment: must be at least 1, got {step}; leave it out for one size")
        elif step is not None and (following <= size or (following - size) % step):
            bad.append(
                f"{where}.increment: steps of {step} from {size} do not lead to the next size ({following}); "
                f"use a divisor of the difference, or leave it out"
            )
        return bad


class BatchConfig(Section):
    """How many sequences a step takes."""

    global_batch_size: int
    """Sequences an optimizer step, over all replicas; behind the ramp, if there is one."""

    micro_batch_size: int
    """Sequences in one forward of one data-parallel replica."""

    ramp: tuple[RampStage, ...] = ()
    """Sizes of the steps before, in their order; each has a bound."""

    seq_length_ramp: tuple[LengthStage, ...] = ()
    """Lengths below model.seq_length, in their order: of the steps before each bound every sample is cut into sequences
    of that length, which know nothing of each other."""

    def stages(self) -> list[tuple[RampStage, int]]:
        """Return every stage of the ramp with the size that follows it."""
        following = [*(stage.global_batch_size for stage in self.ramp), self.global_batch_size][1:]
        return list(zip(self.ramp, following, strict=True))

    def value_problems(self, seq_length: int) -> list[str]:
        """Return every value out of its range, whatever the layout."""
        bad = [
            f"batch.{name}: must be at least 1, got {getattr(self, name)}"
            for name in ("global_batch_size", "micro_batch_size")
            if getattr(self, name) < 1
        ]
        for index, (stage, following) in enumerate(self.stages()):
            bad += stage.problems(f"batch.ramp[{index}]", following)
        return (
            bad
            + ending_problems(self.ramp, "batch.ramp", seq_length)
            + length_problems(self.seq_length_ramp, seq_length)
        )

    def problems(self, data_parallel_size: int) -> list[str]:
        """Return why a batch cannot be split over ``data_parallel_size`` replicas; values must be in their range."""
        together = self.micro_batch_size * max(data_parallel_size, 1)
        sizes = {"batch.global_batch_size": self.global_batch_size}
        for index, stage in enumerate(self.ramp):
            sizes[f"batch.ramp[{index}].global_batch_size"] = stage.global_batch_size
            if stage.increment is not None:
                sizes[f"batch.ramp[{index}].increment"] = stage.increment
        return [
            f"{where} ({size}) is no multiple of batch.micro_batch_size ({self.micro_batch_size}) x data-parallel size "
            f"({data_parallel_size}) = {together}; change one"
            for where, size in sizes.items()
            if size % together
        ]


@dataclass(frozen=True)
class BatchSizes:
    """The global batch size as a function of the samples consumed; steps are counted exactly, at any distance."""

    bounds: tuple[int, ...]
    """Consumed samples from which on a step has the next size."""

    sizes: tuple[int, ...]
    """One more than bounds: a step that begins below ``bounds[k]`` and not below the one before has ``sizes[k]``."""

    @classmethod
    def of(cls, batch: BatchConfig, seq_length: int) -> Self:
        """Lay out the stages of ``batch``, those with an increment size by size."""
        bounds, sizes, begin = [], [], 0
        for stage, following in batch.stages():
            end, rise = stage.bound(seq_length), following - stage.global_batch_size
            parts = 1 if stage.increment is None else rise // stage.increment
            for part in range(parts):
                bounds.append(begin - (begin - end) * (part + 1) // parts)
                sizes.append(stage.global_batch_size + part * rise // parts)
            begin = end
        return cls(tuple(bounds), (*sizes, batch.global_batch_size))

    def at(self, consumed_samples: int) -> int:
        """Return the samples of the step that begins at ``consumed_samples``."""
        return self.sizes[bisect_right(self.bounds, consumed_samples)]

    def after(self, consumed_samples: int, steps: int) -> int:
        """Return the samples that are consumed ``steps`` steps after ``consumed_samples`` were."""
        for size, most in self._stages(consumed_samples):
            taken = steps if most is None else min(steps, most)
            consumed_samples += taken * size
            steps -= taken
            if not steps:
                break
        return consumed_samples

    def steps_within(self, consumed_samples: int, limit: int) -> int:
        """Return how many steps from ``consumed_samples`` on end at ``limit`` samples or before."""
        steps = 0
        for size, most in self._stages(consumed_samples):
            fitting = max(0, limit - consumed_samples) // size
            taken = fitting if most is None else min(fitting, most)
            consumed_samples += taken * size
            steps += taken
            if most is None or fitting < most:
                break
        return steps

    def _stages(self, consumed_samples: int) -> Iterator[tuple[int, int | None]]:
        """Yield sizes from ``consumed_samples`` on, each with the steps that have it; none is no end."""
        for bound, size in zip(self.bounds, self.sizes[:-1], strict=True):
            steps = max(0, -(-(bound - consumed_samples) // size))
            consumed_samples += steps * size
            yield size, steps
        yield self.sizes[-1], None
