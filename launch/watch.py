"""What heartbeats say: whether a rank makes no progress, whose fault that is, and who is slow."""

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from gptdist.config.launch import LaunchConfig
from gptdist.telemetry.heartbeat import ENDED, STARTING, WAITING, Beat

SLOW_FACTOR = 1.5
"""How much more than the median a rank's own work on a step may take before it is named."""

SLOW_STEPS = 10
SLOW_SECONDS = 60.0
"""Over so many steps, and so long, at the least: shorter ones differ by chance."""


@dataclass(frozen=True)
class RankView:
    """A beat, where it was read, and how old it is; ages of several nodes can be compared, their clocks cannot."""

    beat: Beat
    node: str
    seconds: float
    """In its phase."""

    def words(self) -> str:
        """Return where the rank is."""
        beat = self.beat
        return f"rank {beat.rank} on {self.node}: '{beat.phase}' since {self.seconds:.0f} s, after step {beat.step}"


@dataclass(frozen=True)
class Limits:
    """How long a rank may say nothing, in seconds."""

    stall_seconds: float
    startup_seconds: float
    shutdown_seconds: float

    @classmethod
    def of_config(cls, config: LaunchConfig) -> Self:
        """Return what the config says."""
        return cls(config.stall_seconds, config.startup_seconds, config.shutdown_seconds)

    def of(self, beat: Beat) -> tuple[float, str]:
        """Return the limit of a phase, and the key that sets it; the last uploads may take as long as a start."""
        if beat.phase in (*STARTING, "finish"):
            return self.startup_seconds, "startup_seconds"
        return self.stall_seconds, "stall_seconds"


def views(beats: Iterable[Beat], node: str) -> list[RankView]:
    """Return the beats of this node with their ages."""
    now = time.monotonic()
    return [RankView(beat, node, now - beat.since) for beat in beats]


def stalled(ranks: Sequence[RankView], limits: Limits) -> bool:
    """Return whether one of them makes no progress any more."""
    return any(one.seconds > limits.of(one.beat)[0] for one in ranks if one.beat.phase not in ENDED)


def culprit(ranks: Sequence[RankView]) -> RankView:
    """Return the rank that the others wait for, or the best guess: the one furthest behind that waits for nobody."""
    return min(
        (one for one in ranks if one.beat.phase not in ENDED),
        key=lambda one: (one.beat.step, one.beat.phase in WAITING, -one.seconds),
    )


@dataclass(frozen=True)
class Straggler:
    """A rank whose own work takes longer than the others'."""

    rank: int
    node: str
    step_seconds: float
    median_seconds: float

    def words(self) -> str:
        """Return it for a log."""
        return (
            f"rank {self.rank} on {self.node} is slow: {self.step_seconds:.3g} s of own work a step, the median is "
            f"{self.median_seconds:.3g} s"
        )


def straggler(before: Sequence[RankView], now: Sequence[RankView]) -> Straggler | None:
    """Return the slowest rank of the steps between two looks, if it is far slower than the median of all.

    Own work: seconds of steps in which the rank did not wait for others.
    """
    earlier = {one.beat.rank: one.beat for one in before}
    each = []
    for one in now:
        was = earlier.get(one.beat.rank)
        steps = one.beat.step - was.step if was is not None else 0
        if was is None or steps < SLOW_STEPS:
            return None
        each.append(((one.beat.work_seconds - was.work_seconds) / steps, one))
    if len(each) < 2:
        return None
    seconds, slowest = max(each, key=lambda pair: pair[0])
    # Of two ranks the median is the mean of both, which the slow one is part of.
    median = statistics.median([value for value, one in each if one is not slowest] or [seconds])
    if seconds <= SLOW_FACTOR * median:
        return None
    return Straggler(slowest.beat.rank, slowest.node, seconds, median)
