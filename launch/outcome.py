"""How the ranks of a launch ended: read from what they, torchrun and the agents have left in the launch's folder."""

import json
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from gptdist.durable import write_whole
from gptdist.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_REQUEUE,
    EXIT_STALLED,
    EXIT_STOPPED,
    EXIT_USER_ERROR,
)
from gptdist.telemetry.heartbeat import Beat
from gptdist.telemetry.rank_log import Failure, read_failures, stacks_path

_OUTCOME = "outcome_"
_STATUS = {
    "error": EXIT_FAILED,
    "killed": EXIT_FAILED,
    "lost": EXIT_FAILED,
    "refused": EXIT_USER_ERROR,
    "stalled": EXIT_STALLED,
}
_OF_SIGNAL = {
    way(number): status
    for number, status in (
        (signal.SIGINT, EXIT_STOPPED),
        (signal.SIGTERM, EXIT_REQUEUE),
        (signal.SIGUSR1, EXIT_REQUEUE),
    )
    for way in (lambda number: 128 + number, lambda number: -number)
}
"""Of a torchrun that was ended by a signal before its ranks could listen: nothing was begun."""

SAME_MOMENT_SECONDS = 2.0
"""A rank that was killed fails before those that miss it; torchrun tells its time in whole seconds."""


@dataclass(frozen=True)
class Outcome:
    """How a node's ranks ended, or all nodes' together."""

    status: int
    """One of the exit statuses of ``gptdist.errors``."""

    step: int
    """Steps that every rank has done."""

    failures: tuple[Failure, ...] = ()
    """Earliest first."""

    @property
    def first_failure(self) -> Failure | None:
        """The one to show."""
        return self.failures[0] if self.failures else None

    def tree(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    @classmethod
    def of_tree(cls, tree: dict[str, Any]) -> Self:
        """Return what ``tree`` made plain."""
        return cls(tree["status"], tree["step"], tuple(Failure.of_tree(one) for one in tree["failures"]))


def in_order(failures: Sequence[Failure]) -> tuple[Failure, ...]:
    """Return the failures, the cause first: a stall, then what was killed, then by time."""
    ordered = sorted(failures, key=lambda one: (one.kind != "stalled", one.time))
    killed = [one for one in ordered if one.kind in {"killed", "lost"}]
    if killed and ordered[0].kind != "stalled" and killed[0].time <= ordered[0].time + SAME_MOMENT_SECONDS:
        ordered.remove(killed[0])
        ordered.insert(0, killed[0])
    return tuple(ordered)


def outcome_of(
    beats: Sequence[Beat], failures: Sequence[Failure], torchrun_status: int, *, was_asked: bool = False
) -> Outcome:
    """Return how a node's ranks ended.

    Args:
        beats: the last ones.
        failures: of its ranks.
        torchrun_status: its exit status, or less than 0 for the signal that killed it.
        was_asked: whether the ranks were sent a signal to stop; who did not in time was killed for it.
    """
    step = min((beat.step for beat in beats), default=0)
    ordered = in_order(failures)
    if any(beat.phase == "stopped" for beat in beats):  # whatever else came of it: a person wants no restart
        return Outcome(EXIT_STOPPED, step, ordered)
    if was_asked and ordered and ordered[0].kind == "killed":
        return Outcome(EXIT_REQUEUE, step, ordered)
    if ordered:
        return Outcome(_STATUS[ordered[0].kind], step, ordered)
    phases = {beat.phase for beat in beats}
    if phases == {"done"}:
        return Outcome(EXIT_DONE, step)
    if phases and phases <= {"done", "requeue"}:
        return Outcome(EXIT_REQUEUE, step)
    return Outcome(EXIT_REQUEUE if was_asked else _OF_SIGNAL.get(torchrun_status, EXIT_FAILED), step)


def killed_ranks(folder: Path, node: str, beats: Sequence[Beat]) -> list[Failure]:
    """Return the ranks of ``node`` that died of a signal, by what torchrun has left."""
    path, by_rank = folder / f"torchrun_{node}.json", {beat.rank: beat for beat in beats}
    try:
        failed = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return []
    found = []
    for one in failed:
        beat = by_rank.get(one["rank"])
        if one["exit_code"] < 0:
            text = f"killed by {_signal_name(-one['exit_code'])}"
            if one["exit_code"] == -signal.SIGKILL:
                text += ": by the kernel for want of memory, by a scheduler, or by hand"
            text += _stacks(folder, one["rank"])
            found.append(
                Failure(
                    "killed",
                    one["rank"],
                    node,
                    float(one["time"]),
                    step=beat.step if beat else 0,
                    phase=beat.phase if beat else "start",
                    text=text,
                )
            )
    return found


def _stacks(folder: Path, rank: int) -> str:
    """Return where the rank's threads were, if it could still write that."""
    try:
        written = stacks_path(folder, rank).read_text(encoding="utf-8", errors="replace").rstrip()
    except OSError:
        return ""
    return f"\n{written}" if written else ""


def failures_on(folder: Path, node: str, beats: Sequence[Beat]) -> list[Failure]:
    """Return all failures that ranks of ``node`` have had, one a rank.

    One that has said why it ends may have been killed by torchrun before it had.
    """
    told = [one for one in read_failures(folder) if one.node == node]
    ranks = {one.rank for one in told}
    return told + [one for one in killed_ranks(folder, node, beats) if one.rank not in ranks]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def leave_outcome(folder: Path, node: str, outcome: Outcome) -> None:
    """Leave how the node ended for whoever looks after all of them."""
    write_whole(folder / f"{_OUTCOME}{node}.json", json.dumps(outcome.tree()).encode())


def read_outcomes(folder: Path) -> dict[str, Outcome]:
    """Return what each node's agent has left, by node."""
    found = {}
    for path in sorted(folder.glob(f"{_OUTCOME}*.json")):
        try:
            found[path.stem.removeprefix(_OUTCOME)] = Outcome.of_tree(json.loads(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # half of one, of an agent that was killed
    return found


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """Return how all nodes ended together."""
    failures = in_order([failure for one in outcomes for failure in one.failures])
    step = min((one.step for one in outcomes), default=0)
    if failures:
        return Outcome(_STATUS[failures[0].kind], step, failures)
    worst = {status: place for place, status in enumerate((EXIT_DONE, EXIT_REQUEUE, EXIT_STOPPED, EXIT_FAILED))}
    return Outcome(max((one.status for one in outcomes), key=lambda status: worst.get(status, 3), default=1), step)
