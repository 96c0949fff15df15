"""Tasks as a Slurm job array: every element runs its share of the unfinished tasks with ``gptdist prep task``.

The array is waited for; what is done is read from the tasks' markers in the shared work folder, so a lost node or a
time limit costs its unfinished tasks only, and the same command goes on.
"""

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from data_prep.executors.executor import Batch, taken_failure
from data_prep.work import Work
from gptdist.durable import write_whole
from gptdist.errors import DataError

_POLL_SECONDS = 0.5
_SETTLE_SECONDS = 5.0
"""Time that a shared file system may take to show the last markers after the job has left the queue."""
BATCH_NAME = "batch.json"


class SlurmExecutor:
    """Submit each step as an array of at most ``workers`` jobs.

    Args:
        workers: jobs at a time, each on one core.
        options: further options of ``sbatch``, such as ``--partition=cpu`` or ``--time=60``.
    """

    def __init__(self, workers: int, options: Sequence[str]) -> None:
        self._workers, self._options = workers, tuple(options)

    def run(self, batch: Batch, finished: Callable[[int], None]) -> Sequence[str]:
        """Run a batch; see ``Executor``.

        Raises:
            DataError: Slurm is not installed or refuses the job.
        """
        if shutil.which("sbatch") is None:
            raise DataError("--executor slurm: 'sbatch' is not installed here; log in to a Slurm host, or use local")
        folder = batch.work_folder / "slurm" / batch.step
        folder.mkdir(parents=True, exist_ok=True)
        jobs = min(self._workers, len(batch.ranks))
        write_whole(folder / BATCH_NAME, json.dumps({"ranks": batch.ranks, "world_size": batch.world_size}).encode())
        write_whole(folder / "job.sh", array_script(batch, folder).encode())
        array = f"--array=0-{jobs - 1}"
        command = ["sbatch", "--parsable", array, f"--job-name=gptdist-{batch.step}", "--cpus-per-task=1"]
        command += [f"--output={folder.resolve()}/%a.log", *self._options, str(folder / "job.sh")]
        submitted = subprocess.run(command, capture_output=True, text=True, check=False)
        if submitted.returncode:
            raise DataError(f"--executor slurm: sbatch refused the job ({_last_line(submitted.stderr)})")
        job = submitted.stdout.strip().split(";")[0]
        try:
            self._wait(batch, job, finished)
        except BaseException:
            subprocess.run(["scancel", job], check=False)  # nobody waits for it any more
            raise
        return self._outcome(batch, folder, job)

    def _wait(self, batch: Batch, job: str, finished: Callable[[int], None]) -> None:
        """Wait until every task is done, or the job has left the queue."""
        work, left = Work(batch.work_folder), set(batch.ranks)
        gone_since: float | None = None
        while left:
            for rank in sorted(rank for rank in left if work.is_done(batch.step, rank)):
                left.remove(rank)
                finished(rank)
            if gone_since is not None and time.monotonic() - gone_since > _SETTLE_SECONDS:
                return
            if gone_since is None and not _is_queued(job):
                gone_since = time.monotonic()
            time.sleep(_POLL_SECONDS)

    def _outcome(self, batch: Batch, folder: Path, job: str) -> list[str]:
        """Return the problems of the tasks that are not done."""
        work = Work(batch.work_folder)
        missing = [rank for rank in batch.ranks if not work.is_done(batch.step, rank)]
        problems = [problem for rank in missing for problem in taken_failure(work, batch.step, rank)]
        if missing and not problems:
            problems.append(
                f"step {batch.step}: {len(missing)} of {len(batch.ranks)} tasks were not done by job array {job}; "
                f"look into {folder}/*.log; the same command goes on"
            )
        return problems


def array_script(batch: Batch, folder: Path) -> str:
    """Return the batch script; words are quoted, so no name can become a command."""
    command = [sys.executable, "-m", "gptdist.cli.main", "prep", "task", str(batch.work_folder.resolve()), batch.step]
    command += ["--batch", str((folder / BATCH_NAME).resolve())]
    return (
        "#!/bin/bash\n"
        "export RAYON_NUM_THREADS=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false\n"
        f'exec {shlex.join(command)} --element "$SLURM_ARRAY_TASK_ID" --of "$SLURM_ARRAY_TASK_COUNT"\n'
    )


def _is_queued(job: str) -> bool:
    """Whether Slurm still has the job; a controller that does not answer is not a job that ended."""
    seen = subprocess.run(["squeue", "--noheader", "--jobs", job], capture_output=True, text=True, check=False)
    if seen.returncode:
        return "Invalid job id" not in seen.stderr
    return bool(seen.stdout.strip())


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]
