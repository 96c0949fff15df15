"""Predicted against published, row by row, and how far they are apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from gptdist.plan.constants import MEMORY_BAND, TIME_BAND, Constants
from gptdist.plan.published import PublishedRun, source_name
from gptdist.plan.published_memory import published_bytes
from gptdist.plan.step_time import step_time

GIB = 2**30


@dataclass(frozen=True)
class Score:
    """A published run and what was predicted of it."""

    run: PublishedRun
    seconds: float
    """Predicted, of a step."""

    gib: float | None
    """Predicted, of the fullest GPU; None where the row does not say what is computed again."""

    @property
    def time_error(self) -> float | None:
        """Predicted over measured seconds, less 1."""
        measured = self.run.step_seconds
        return None if measured is None else self.seconds / measured - 1

    @property
    def memory_error(self) -> float | None:
        """Predicted over measured memory, less 1."""
        measured = self.run.memory_gib
        return None if measured is None or self.gib is None else self.gib / measured - 1

    @property
    def fits(self) -> bool | None:
        """Whether it is predicted to fit."""
        return None if self.gib is None else self.gib * GIB <= self.run.device.memory_bytes

    @property
    def is_refused(self) -> bool:
        """Whether a run that took place is predicted to need more than the device has, by more than the band."""
        if self.gib is None or self.run.ran_out:
            return False
        return self.gib * GIB > self.run.device.memory_bytes * (1 + MEMORY_BAND)

    def tree(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "row": self.run.row,
            "source": self.run.source,
            "run": self.run.label,
            "predicted_step_seconds": self.seconds,
            "measured_step_seconds": self.run.step_seconds,
            "time_error": self.time_error,
            "predicted_memory_gib": self.gib,
            "measured_memory_gib": self.run.memory_gib,
            "memory_error": self.memory_error,
            "ran_out_of_memory": self.run.ran_out,
            "predicted_to_fit": self.fits,
        }


def score_of(run: PublishedRun, for_time: Constants, for_memory: Constants) -> Score:
    """Predict one run."""
    return Score(
        run,
        step_time(run.workload, run.device, run.network, for_time).total,
        published_bytes(run, for_memory) / GIB if run.tells_recomputation else None,
    )


def scored(runs: Sequence[PublishedRun], constants: Constants) -> list[Score]:
    """Predict each run."""
    return [score_of(run, constants, constants) for run in runs]


def errors_text(errors: Sequence[float], band: float) -> str:
    """Say the median and the ninth decile of absolute errors, and how many are within ``band``."""
    sizes = [abs(error) for error in errors]
    if len(sizes) < 2:
        return f"{len(sizes)} rows" + "".join(f", error {error:+.1%}" for error in errors)
    ninth = quantiles(sizes, n=10, method="inclusive")[-1]
    within = sum(size <= band for size in sizes) / len(sizes)
    return (
        f"{len(sizes)} rows: median |error| {median(sizes):.1%}, nine of ten within {ninth:.1%}, {within:.1%} within "
        f"{band:.0%}"
    )


def summary_lines(scores: Sequence[Score]) -> list[str]:
    """Return the errors in all and by source."""
    times = [score for score in scores if score.time_error is not None]
    memories = [score for score in scores if score.memory_error is not None]
    lines = [f"time: {errors_text([score.time_error or 0.0 for score in times], TIME_BAND)}"]
    for source in sorted({source_name(score.run) for score in times}):
        errors = [score.time_error or 0.0 for score in times if source_name(score.run) == source]
        lines.append(f"  {source:18} {errors_text(errors, TIME_BAND)}")
    lines.append(f"memory: {errors_text([score.memory_error or 0.0 for score in memories], MEMORY_BAND)}")
    for source in sorted({source_name(score.run) for score in memories}):
        errors = [score.memory_error or 0.0 for score in memories if source_name(score.run) == source]
        lines.append(f"  {source:18} {errors_text(errors, MEMORY_BAND)}")
    out = [score for score in scores if score.run.ran_out]
    called = sum(score.fits is False for score in out)
    ran = [score for score in scores if not score.run.ran_out and score.gib is not None]
    refused = sum(score.is_refused for score in ran)
    lines.append(f"out of memory: {called} of {len(out)} called")
    lines.append(f"runs that took place: {refused} of {len(ran)} refused by more than {MEMORY_BAND:.0%}")
    return lines


def row_lines(scores: Sequence[Score]) -> list[str]:
    """Return a line for each run."""
    lines = ["  row  source              run                       ranks  step s: measured predicted  error   GiB"]
    for score in scores:
        run = score.run
        measured = "" if run.step_seconds is None else f"{run.step_seconds:.3f}"
        error = "" if score.time_error is None else f"{score.time_error:+.1%}"
        lines.append(
            f"{run.row:5}  {source_name(run):18}  {run.label[:24]:24}  {run.workload.layout.world_size:5}  "
            f"{measured:>16} {score.seconds:9.3f} {error:>6}   {_memory_text(score)}"
        )
    return lines


def _memory_text(score: Score) -> str:
    run = score.run
    if score.gib is None:
        return ""
    if run.ran_out:
        return f"out of memory; predicted {score.gib:.1f} of {run.device.memory_bytes / GIB:.0f}"
    if run.memory_gib is None:
        return f"predicted {score.gib:.1f} of {run.device.memory_bytes / GIB:.0f}"
    return f"{run.memory_gib:g}, predicted {score.gib:.1f} ({score.memory_error:+.1%})"
