"""What every executor offers, and what one task amounts to wherever it runs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data_prep.document import Place
from data_prep.steps.all_steps import step_named
from data_prep.work import Work, run_task
from gptdist.durable import write_whole
from gptdist.errors import GptDistError

MOST_FAILURES = 20
"""Failed tasks after which no more are started: what is wrong with so many is wrong with all."""


@dataclass(frozen=True)
class Batch:
    """Unfinished tasks of one step."""

    work_folder: Path
    step: str
    ranks: tuple[int, ...]
    world_size: int


class Executor(Protocol):
    """Runs tasks, any number at a time, in any order."""

    def run(self, batch: Batch, finished: Callable[[int], None]) -> Sequence[str]:
        """Run a batch; call ``finished`` with the rank of each task that is done; return the failed tasks' problems.

        Raises:
            DataError: the tasks cannot be run at all.
        """
        ...


def perform(work_folder: str, step: str, rank: int, world_size: int) -> tuple[str, ...]:
    """Do one task in this process; return what the user has to mend, nothing where it is done."""
    work = Work(Path(work_folder))
    try:
        run_task(work, step_named(work.config, step), Place(rank, world_size))
    except GptDistError as error:
        return error.problems
    except OSError as error:
        return (
            f"{error.filename or work_folder}: {error.strerror} (step {step}, task {rank}); mend it and start again",
        )
    return ()


def note_failure(work: Work, step: str, rank: int, problems: Sequence[str]) -> None:
    """Leave the problems of a failed task where the process that waits for it finds them."""
    write_whole(_failure_path(work, step, rank), json.dumps(list(problems)).encode())


def taken_failure(work: Work, step: str, rank: int) -> list[str]:
    """Return and remove what a failed task left; empty where it left nothing."""
    path = _failure_path(work, step, rank)
    if not path.is_file():
        return []
    problems = [str(problem) for problem in json.loads(path.read_bytes())]
    path.unlink()
    return problems


def _failure_path(work: Work, step: str, rank: int) -> Path:
    return work.step_folder(step) / f"{rank:06d}.failed.json"
