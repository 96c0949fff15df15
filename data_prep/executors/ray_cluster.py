"""Tasks on a Ray cluster: remote functions over the shared work folder; no document passes through Ray itself."""

from collections.abc import Callable, Sequence
from typing import Any

from data_prep.executors.executor import MOST_FAILURES, Batch, perform
from gptdist.errors import DataError

_RETRIES = 3
"""Times that Ray runs a task again whose worker or node was lost."""


class RayExecutor:
    """Run tasks on the cluster that ``RAY_ADDRESS`` names, or on one that is started here.

    Args:
        workers: tasks at a time.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def run(self, batch: Batch, finished: Callable[[int], None]) -> Sequence[str]:
        """Run a batch; see ``Executor``.

        Raises:
            DataError: Ray is not installed.
        """
        ray = self._ray()
        remote = ray.remote(num_cpus=1, max_retries=_RETRIES)(perform)
        problems: list[str] = []
        failures = 0
        queue = iter(batch.ranks)
        running: dict[Any, int] = {}
        while True:
            while failures < MOST_FAILURES and len(running) < self._workers and (rank := next(queue, None)) is not None:
                running[remote.remote(str(batch.work_folder.resolve()), batch.step, rank, batch.world_size)] = rank
            if not running:
                return problems
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            rank = running.pop(done)
            found = self._result(ray, done, batch, rank)
            problems += found
            failures += bool(found)
            if not found:
                finished(rank)

    def _ray(self) -> Any:
        try:
            import ray
        except ImportError:
            raise DataError("--executor ray: Ray is not installed; pip install 'gptdist[ray]', or use local") from None
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False, logging_level="warning")
        return ray

    def _result(self, ray: Any, done: Any, batch: Batch, rank: int) -> tuple[str, ...]:
        try:
            return tuple(ray.get(done))
        except ray.exceptions.WorkerCrashedError:
            return (
                f"step {batch.step}: task {rank} lost its worker {_RETRIES + 1} times; if memory ran out, lower "
                "--workers or input_shard_bytes; the same command goes on",
            )
