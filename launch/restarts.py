"""Whether a job that ended begins again by itself."""

from collections.abc import Sequence
from dataclasses import dataclass

from gptdist.config.launch import LaunchConfig
from gptdist.errors import EXIT_FAILED, EXIT_STALLED
from launch.outcome import Outcome

LONGEST_WAIT_SECONDS = 300.0
SAME_STEP_FAILURES = 2


@dataclass(frozen=True)
class Ended:
    """One attempt that is over."""

    outcome: Outcome
    saved_step: int
    """Of the newest checkpoint after it."""


@dataclass(frozen=True)
class Decision:
    """What comes next."""

    restarts: bool
    wait_seconds: float
    reason: str
    """In words, for the log."""


def decide(history: Sequence[Ended], limits: LaunchConfig, saved_before: int = 0) -> Decision:
    """Return what to do after the last attempt of ``history``.

    Args:
        history: all attempts of this launch, oldest first.
        limits: how often, and with which waits.
        saved_before: step of the newest checkpoint before the first of them.
    """
    last = history[-1].outcome
    if last.status not in {EXIT_FAILED, EXIT_STALLED}:
        return Decision(False, 0.0, "")
    row = _failures_in_a_row(history, saved_before)
    first = last.first_failure
    if len(row) >= SAME_STEP_FAILURES and _is_same(row[-SAME_STEP_FAILURES:]):
        assert first is not None, "they were compared"
        reason = (
            f"{SAME_STEP_FAILURES} attempts in a row failed after step {first.step} in the same way "
            f"({_last_line(first.text)}); it would fail again: mend the cause, the same command goes on"
        )
        return Decision(False, 0.0, reason)
    if len(row) > limits.max_restarts:
        reason = (
            f"{len(row)} attempts in a row failed without another checkpoint, launch.max_restarts is "
            f"{limits.max_restarts}; look at the cause, the same command goes on"
        )
        return Decision(False, 0.0, reason if limits.max_restarts else "")
    wait = min(limits.restart_wait_seconds * 2 ** (len(row) - 1), LONGEST_WAIT_SECONDS)
    return Decision(True, wait, f"restart {len(row)} of {limits.max_restarts} in a row, in {wait:g} s")


def _failures_in_a_row(history: Sequence[Ended], saved_before: int) -> list[Outcome]:
    """Return the last failures, back to the one that came to another checkpoint, which is the first of them."""
    row: list[Outcome] = []
    for place in range(len(history) - 1, -1, -1):
        row.insert(0, history[place].outcome)
        before = history[place - 1].saved_step if place else saved_before
        if history[place].saved_step > before:
            break
    return row


def _is_same(row: Sequence[Outcome]) -> bool:
    """Return whether all failed by an error of the program in the same step, which chance alone does not do."""
    firsts = [one.first_failure for one in row]
    seen = {(one.kind, one.step, _last_line(one.text)) for one in firsts if one is not None}
    return None not in firsts and len(seen) == 1 and next(iter(seen))[0] == "error"


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1][:200] if text.strip() else ""
