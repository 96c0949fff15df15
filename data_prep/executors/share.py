"""What one element of a job array does: its share of a batch of tasks."""

import json
from pathlib import Path

from data_prep.executors.executor import note_failure, perform
from data_prep.work import Work
from gptdist.errors import DataError


def perform_share(work_folder: Path, step: str, batch: Path, share: tuple[int, int]) -> list[str]:
    """Do every n-th task of a batch file, beginning with the k-th, for ``share`` = (k, n); return the problems.

    Raises:
        DataError: the folder or the file is not one that a run wrote.
    """
    try:
        work = Work(work_folder)
        tree = json.loads(batch.read_bytes())
        ranks, world_size = [int(rank) for rank in tree["ranks"]], int(tree["world_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{work_folder}: no work of a running preparation ({error}); start 'gptdist prep run'"
        ) from None
    problems: list[str] = []
    element, of = share
    for rank in ranks[element::of]:
        found = perform(str(work_folder), step, rank, world_size)
        if found:
            note_failure(work, step, rank, found)
        problems += found
    return problems
