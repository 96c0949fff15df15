"""The course of a rehearsal: a few steps in which all happens that happens in a long run, in the same order."""

import math
from dataclasses import dataclass
from typing import Any, Self

from gptdist.config.batch import BatchConfig, BatchSizes
from gptdist.config.optimization import ScheduleConfig
from gptdist.config.retention import KeepConfig
from gptdist.config.run import RunConfig
from gptdist.config.shrink_axes import Axes

LEAST_SEQ_LENGTH = 32
LEAST_SAVE_STEPS = 2


@dataclass(frozen=True)
class Lengths:
    """Tokens of a sample, and of the sequences that a ramp cuts it into."""

    sample: int
    ramp: tuple[int, ...]

    @classmethod
    def of(cls, config: RunConfig, small: Axes, packed_for: int | None) -> Self:
        """Return the shortest that ``small`` can cut, with a ramp of as many different lengths.

        Args:
            config: the real one.
            small: axes of the rehearsal.
            packed_for: tokens of a sample that the data was packed for, where it was.
        """
        real = [stage.seq_length for stage in config.batch.seq_length_ramp]
        if packed_for is not None:
            return cls(packed_for, tuple(real))
        unit = 2 * small.context if small.context > 1 else 1
        if config.parallel.sequence_parallel:
            unit = math.lcm(unit, small.tensor * small.context)
        levels = sorted({*real, config.model.seq_length})
        unit *= -(-LEAST_SEQ_LENGTH // (unit * 2 ** (len(levels) - 1)))
        return cls(
            sample=unit * 2 ** (len(levels) - 1), ramp=tuple(unit * 2 ** levels.index(length) for length in real)
        )


@dataclass(frozen=True)
class Course:
    """Batches, and how many steps they take."""

    batch: dict[str, Any]
    """The section, as plain data."""

    sizes: BatchSizes
    save_steps: int

    @property
    def train_steps(self) -> int:
        """Steps in all: to a checkpoint behind all ramps and stages, and to another."""
        return 2 * self.save_steps

    @property
    def samples(self) -> int:
        """Samples in all."""
        return self.sizes.after(0, self.train_steps)

    @classmethod
    def of(cls, config: RunConfig, real: Axes, small: Axes, lengths: Lengths) -> Self:
        """Return the shortest that goes through all that ``config`` has."""
        batch = _small_batch(config.batch, real, small)
        ending = 0
        for index, (own, stage) in enumerate(zip(batch["ramp"], config.batch.ramp, strict=True)):
            rise = 0 if own["increment"] is None else _next_size(batch, index) - own["global_batch_size"]
            parts = 1 if not rise else rise // own["increment"]
            # Each part lasts at least a step of the largest size in the stage.
            ending += parts * (own["global_batch_size"] + max(0, rise - (own["increment"] or 0)))
            own.update(_point("until", stage.until_tokens is not None, ending, lengths.sample))
        sizes = BatchSizes.of(BatchConfig.from_tree(batch), lengths.sample)
        for index, (cut, length) in enumerate(zip(config.batch.seq_length_ramp, lengths.ramp, strict=True)):
            end = sizes.after(0, index + 1)
            batch["seq_length_ramp"][index] = {
                "seq_length": length,
                **_point("until", cut.until_tokens is not None, end, lengths.sample),
            }
        ramp_steps, consumed = 0, 0
        while consumed < ending:
            ramp_steps, consumed = ramp_steps + 1, sizes.after(consumed, 1)
        ramp_steps = max(ramp_steps, len(config.batch.seq_length_ramp), len(config.data.stages))
        return cls(batch, sizes, max(LEAST_SAVE_STEPS, ramp_steps + 1))

    def data_stages(self, config: RunConfig, lengths: Lengths) -> list[dict[str, Any]]:
        """Return ``data.stages``, one behind each of the first steps."""
        return [
            stage.tree() | _point("from", stage.from_tokens is not None, self.sizes.after(0, index + 1), lengths.sample)
            for index, stage in enumerate(config.data.stages)
        ]

    def schedule(self, config: RunConfig, lengths: Lengths) -> dict[str, Any]:
        """Return the section with every length at the same fraction of the run, as near as whole steps go."""
        schedule = config.schedule
        if schedule.in_tokens:
            real, small, step = config.train_tokens, self.samples * lengths.sample, self.sizes.at(0) * lengths.sample
        else:
            real, small, step = config.training.train_steps, self.train_steps, 1
        return _small_schedule(schedule, real, small, step)

    def intervals(self, config: RunConfig) -> dict[str, Any]:
        """Return the section: a line of the log each step, all else once before each checkpoint."""
        ends_early = config.training.early_stopping is not None
        return {
            "log_steps": 1,
            "eval_steps": 1 if ends_early else self.save_steps,
            "save_steps": self.save_steps,
            "sample_steps": None if config.intervals.sample_steps is None else self.save_steps,
            "check_steps": self.save_steps,
        }

    def keep(self, rules: KeepConfig) -> dict[str, Any]:
        """Return which checkpoints stay: by the same rules, and at least the two that a replay goes between."""
        tree = rules.tree()
        if not rules.keeps_everything:
            tree["last"] = max(2, rules.last or 0)
        if rules.every_steps is not None:
            tree["every_steps"] = self.save_steps
        return tree


def _small_batch(batch: BatchConfig, real: Axes, small: Axes) -> dict[str, Any]:
    """Return the section without bounds: as many different sizes in the same order, in whole micro batches."""
    micro = min(2, batch.micro_batch_size)
    unit = micro * small.data
    sizes = sorted({batch.global_batch_size, *(stage.global_batch_size for stage in batch.ramp)})
    accumulates = batch.global_batch_size > batch.micro_batch_size * real.data
    by_size = {size: unit * (1 + 2 * level) for level, size in enumerate(sizes)}
    if len(sizes) == 1:
        by_size = {sizes[0]: unit * (2 if accumulates else 1)}
    tree = batch.tree() | {"micro_batch_size": micro, "global_batch_size": by_size[batch.global_batch_size]}
    for own, (stage, following) in zip(tree["ramp"], batch.stages(), strict=True):
        own["global_batch_size"] = by_size[stage.global_batch_size]
        if stage.increment is not None:
            is_one = following - stage.global_batch_size == stage.increment
            rise = by_size[following] - by_size[stage.global_batch_size]
            own["increment"] = rise if is_one else rise // 2
    return tree


def _next_size(batch: dict[str, Any], index: int) -> int:
    ramp = batch["ramp"]
    return int(ramp[index + 1]["global_batch_size"] if index + 1 < len(ramp) else batch["global_batch_size"])


def _point(name: str, in_tokens: bool, samples: int, sample_tokens: int) -> dict[str, int | None]:
    return {
        f"{name}_samples": None if in_tokens else samples,
        f"{name}_tokens": samples * sample_tokens if in_tokens else None,
    }


def _small_schedule(schedule: ScheduleConfig, real: int, small: int, step: int) -> dict[str, Any]:
    """Return the schedule of a run as long as ``small`` where that of ``schedule`` is as long as ``real``.

    Args:
        schedule: of the real run.
        real: its length, in the schedule's unit.
        small: of the small run.
        step: of one step.
    """
    tree, unit = schedule.tree(), "tokens" if schedule.in_tokens else "steps"
    lengths = schedule.lengths(real)

    def scaled(length: int) -> int:
        return max(step, round(length * small / real))

    has_end = tree[f"decay_{unit}"] is not None
    end = max(2 * step, scaled(lengths.end)) if has_end else small
    warmup = min(scaled(lengths.warmup), end // 2) if lengths.warmup else 0
    if tree[f"warmup_{unit}"] is not None:
        tree[f"warmup_{unit}"] = warmup
    if has_end:
        tree[f"decay_{unit}"] = end
    if tree[f"cooldown_{unit}"] is not None:
        tree[f"cooldown_{unit}"] = min(scaled(lengths.cooldown), end - warmup)
    return tree
