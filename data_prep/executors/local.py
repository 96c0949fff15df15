"""Tasks in processes of this machine."""

import logging
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from data_prep.executors.executor import MOST_FAILURES, Batch, perform
from data_prep.work import Work
from gptdist.errors import DataError

logger = logging.getLogger(__name__)

_LOST_WORKERS = 3
"""Times in a row that a worker may die without any task getting done before the run gives up."""
_PRELOADED = ["data_prep.executors.executor", "pandas"]
"""Imported once by the server that workers are forked from; Arrow imports pandas with the first array it makes."""


class LocalExecutor:
    """Run tasks in ``workers`` processes, which stay for all steps; a single worker is this process itself.

    So is a first step of a single task. A worker that is killed (out of memory, ``kill -9``) takes nothing with it but
    its task, which is run again.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def run(self, batch: Batch, finished: Callable[[int], None]) -> Sequence[str]:
        """Run a batch; see ``Executor``.

        Raises:
            DataError: workers die again and again.
        """
        if self._workers == 1 or (len(batch.ranks) == 1 and self._pool is None):
            return self._run_here(batch, finished)
        failed: dict[int, tuple[str, ...]] = {}
        left = list(batch.ranks)
        losses = 0
        while left:
            before = len(left)
            try:
                self._run_pool(batch, left, failed, finished)
                break
            except BrokenProcessPool:
                self._pool = None
                work = Work(batch.work_folder)
                for rank in [rank for rank in left if work.is_done(batch.step, rank)]:
                    left.remove(rank)
                    finished(rank)
                losses = losses + 1 if len(left) == before else 1
                if losses >= _LOST_WORKERS:
                    raise DataError(_gave_up(batch, left[: self._workers], losses)) from None
                logger.warning("step %s: a worker was killed; its task is run again", batch.step)
        return [problem for rank in sorted(failed) for problem in failed[rank]]

    def _run_here(self, batch: Batch, finished: Callable[[int], None]) -> list[str]:
        problems: list[str] = []
        failures = 0
        for rank in batch.ranks:
            found = perform(str(batch.work_folder), batch.step, rank, batch.world_size)
            problems += found
            failures += bool(found)
            if failures >= MOST_FAILURES:
                break
            if not found:
                finished(rank)
        return problems

    def _run_pool(
        self, batch: Batch, left: list[int], failed: dict[int, tuple[str, ...]], finished: Callable[[int], None]
    ) -> None:
        """Run ``left`` in a pool, taking out of it what is done, and what has failed into ``failed``."""
        pool = self._pool = self._pool or _start_pool(self._workers)
        queue = iter(list(left))
        running: dict[Future[tuple[str, ...]], int] = {}
        while True:
            while (
                len(failed) < MOST_FAILURES and len(running) < self._workers and (rank := next(queue, None)) is not None
            ):
                running[pool.submit(perform, str(batch.work_folder), batch.step, rank, batch.world_size)] = rank
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                found = future.result()
                rank = running.pop(future)
                left.remove(rank)
                if found:
                    failed[rank] = found
                else:
                    finished(rank)


def _start_pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_single_thread)


def _gave_up(batch: Batch, ranks: Sequence[int], losses: int) -> str:
    return (
        f"step {batch.step}: workers were killed {losses} times in a row with nothing done (next: tasks "
        f"{', '.join(map(str, ranks))}); if memory ran out, lower --workers or input_shard_bytes; "
        "the same command goes on"
    )


def _single_thread() -> None:
    """Keep libraries of a worker to one thread: there is a worker for each core."""
    for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
