"""The executor that a command names."""

from collections.abc import Sequence

from data_prep.executors.executor import Executor
from data_prep.executors.local import LocalExecutor
from data_prep.executors.ray_cluster import RayExecutor
from data_prep.executors.slurm import SlurmExecutor
from gptdist.errors import DataError


def make_executor(name: str, workers: int, slurm_options: Sequence[str]) -> Executor:
    """Return the executor called ``name``, with ``workers`` tasks at a time.

    Raises:
        DataError: options of Slurm are given to another.
    """
    if slurm_options and name != "slurm":
        raise DataError(f"--slurm-option: belongs to --executor slurm, not {name}; remove it")
    if name == "slurm":
        return SlurmExecutor(workers, slurm_options)
    return RayExecutor(workers) if name == "ray" else LocalExecutor(workers)
