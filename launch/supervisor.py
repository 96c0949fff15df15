"""Keeps a job going: one attempt after the other, until it is done, stopped, or fails for good."""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from gptdist.checkpoint.find import step_folders, step_of
from gptdist.config.run import RunConfig
from gptdist.errors import EXIT_FAILED, EXIT_REQUEUE, EXIT_STALLED, TrainingError
from gptdist.telemetry.fence import make_current
from gptdist.telemetry.ledger import ENDED, LEDGER_NAME, Ledger, read_json_lines
from launch.agent import show_failure
from launch.job import LOGS_NAME, next_log_folder
from launch.outcome import Outcome
from launch.restarts import Ended, decide

_LOCK_NAME = "lock"

Regroup = Callable[[Outcome], str | None]
"""Chooses the nodes of the next attempt by how the last one ended; returns why there are none."""


class Attempt(Protocol):
    """Starts the ranks on all nodes, waits for their end, and says how it was."""

    def __call__(self, log_folder: Path, stop_after_seconds: float | None) -> Outcome:
        """Run one attempt with its logs in ``log_folder``."""
        ...


def supervise(
    config: RunConfig,
    attempt: Attempt,
    say: Callable[[str], None],
    *,
    regroup: Regroup | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Run attempts until there is nothing to be gained by another; return the exit status of the last.

    Args:
        config: the resolved config.
        attempt: starts the ranks.
        say: shows a line to the user.
        regroup: is asked before each attempt but the first; default: the nodes stay as they are.
        pause: waits so many seconds, or less where there is no use in it.

    Raises:
        TrainingError: another launch is at work in the run's folder.
    """
    with _alone(config.folder):
        return _supervise(config, attempt, say, regroup, pause)


def _supervise(
    config: RunConfig,
    attempt: Attempt,
    say: Callable[[str], None],
    regroup: Regroup | None,
    pause: Callable[[float], None],
) -> int:
    begin, history = time.monotonic(), []
    saved_before = newest_step(config.checkpoints_folder)
    while True:
        left = remaining_seconds(config, begin)
        if left is not None and left <= 0:
            return EXIT_REQUEUE
        logs, number = next_log_folder(config.folder), newest_attempt(config.folder)
        make_current(logs)
        outcome = attempt(logs, left)
        history.append(Ended(outcome, newest_step(config.checkpoints_folder)))
        note_end(config.folder, outcome, number, history[-1].saved_step)
        show_failure(outcome, logs, say)
        decision = decide(history, config.launch, saved_before)
        if decision.reason:
            say(decision.reason)
        if not decision.restarts:
            return outcome.status
        problem = regroup(outcome) if regroup is not None else None
        if problem is not None:
            say(problem)
            return outcome.status
        pause(decision.wait_seconds)


@contextlib.contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Keep other launches out of the run's folder, from the first attempt to the end of the last."""
    path = run / LOGS_NAME / _LOCK_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(
                f"{run}: another job is training here; wait for it, stop it, or set another run_dir"
            ) from None
        yield


def remaining_seconds(config: RunConfig, begin: float) -> float | None:
    """Return how long the ranks may still train in a launch that began at ``begin``, by the monotonic clock."""
    limit = config.launch.stop_after_seconds
    return None if limit is None else limit - (time.monotonic() - begin)


def newest_step(checkpoints: Path) -> int:
    """Return the step of the newest checkpoint, 0 if there is none; it is not verified."""
    return max((step_of(folder) for folder in step_folders(checkpoints)), default=0)


def newest_attempt(run: Path) -> int:
    """Return the number of the newest attempt that the ledger has, 0 if there is none."""
    return max((int(event.get("attempt", 0)) for event in read_json_lines(run / LEDGER_NAME)), default=0)


def note_end(run: Path, outcome: Outcome, attempt_before: int, saved_step: int) -> None:
    """Note in the ledger how an attempt failed; one that ended by itself has said so, and one that never began is none.

    Args:
        run: folder.
        outcome: of the attempt.
        attempt_before: newest attempt before it.
        saved_step: of the newest checkpoint.
    """
    attempt, first = newest_attempt(run), outcome.first_failure
    if attempt <= attempt_before or outcome.status not in {EXIT_FAILED, EXIT_STALLED} or first is None:
        return
    ledger = Ledger(run)
    ledger.attempt = attempt
    ledger.write(
        ENDED,
        reason=first.kind,
        rank=first.rank,
        node=first.node,
        phase=first.phase,
        failed_after_step=first.step,
        lost_steps=max(0, outcome.step - saved_step),
        text=first.text.strip().splitlines()[-1][:300] if first.text.strip() else "",
        failed_nodes=sorted({one.node for one in outcome.failures}),
    )


def console(prefix: str) -> Callable[[str], None]:
    """Return what shows a line on standard error, in one write."""

    def say(line: str) -> None:
        text = line if line.startswith("gptdist") else f"{prefix}: {line}"
        os.write(2, f"{text}\n".encode())

    return say
