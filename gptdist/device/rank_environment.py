"""Which rank this process is, where ``mpirun`` or ``srun`` started it: their variables as those of torch.distributed.

torch reads RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. torchrun sets them; other launchers count in
variables of their own. Pure: looks at no environment but the one it is given.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from gptdist.errors import LaunchError

FIRST_PORT, PORTS = 20000, 12000
"""Ports from which that of a job is taken: below those that Linux gives to outgoing connections (32768 and up)."""


@dataclass(frozen=True)
class Counting:
    """The variables in which one kind of launcher numbers the processes that it starts."""

    launcher: str
    rank: str
    size: str
    local_rank: str
    local_size: str
    job: tuple[str, ...]
    """Variables that are together the same in all processes of a job, and others in another job."""


OPEN_MPI = Counting(
    "Open MPI",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    ("PMIX_NAMESPACE",),
)
HYDRA = Counting("MPICH or Intel MPI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", ())
SLURM = Counting("srun", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "", ("SLURM_JOB_ID", "SLURM_STEP_ID"))
PMIX = Counting("PMIx", "PMIX_RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", ("PMIX_NAMESPACE",))


def rank_environment(environment: Mapping[str, str], *, parent: int) -> dict[str, str]:
    """Return the variables to add to ``environment`` so that torch.distributed finds the other ranks.

    None where torchrun, or a script, has set them already, and where no launcher is known.

    Args:
        environment: of this process.
        parent: id of the process that started it; on one host all ranks of a job have the same one.

    Raises:
        LaunchError: numbers are missing, impossible or contradict each other, or nothing says where rank 0 is.
    """
    counting = _counting(environment)
    if counting is None or "TORCHELASTIC_RUN_ID" in environment:  # what mpirun or srun started was torchrun
        return {}
    numbers, problems = _numbers(environment, counting)
    if problems:
        raise LaunchError(problems)
    rank, size, local_rank = numbers["RANK"], numbers["WORLD_SIZE"], numbers["LOCAL_RANK"]
    if not 0 <= rank < size:
        problems.append(f"{counting.rank}: {rank} is no rank of {counting.size}={size}; {_START_AGAIN}")
    if not 0 <= local_rank <= rank:  # launchers number hosts' ranks in the order of all ranks
        problems.append(f"{counting.local_rank}: {local_rank} is no place of rank {rank} on its host; {_START_AGAIN}")
    added = {name: str(number) for name, number in numbers.items()}
    # RANK alone is not believed of srun: variables of the surrounding job script are inherited by all below it.
    if "RANK" in environment and counting is SLURM:
        return {}
    problems += [
        f"{name}: is {environment[name]}, but {counting.launcher} says {value}; unset {name}"
        for name, value in added.items()
        if environment.get(name, value) != value
    ]
    if not problems:
        meeting, problems = _meeting(environment, counting, _is_one_host(environment, counting, size), parent)
        added |= meeting
    if problems:
        raise LaunchError(problems)
    return {name: value for name, value in added.items() if name not in environment}


_MEANING = {
    "RANK": "the rank",
    "WORLD_SIZE": "how many ranks there are",
    "LOCAL_RANK": "the rank's place on its host",
}
_START_AGAIN = "start the ranks with mpirun, srun or torchrun"


def _counting(environment: Mapping[str, str]) -> Counting | None:
    """Return the innermost launcher: the variables of those around it are inherited."""
    in_step = "SLURM_STEP_ID" in environment  # a job's script has SLURM_PROCID too, and is no rank
    if OPEN_MPI.rank in environment:
        return OPEN_MPI
    # srun --mpi=pmi2 sets PMI_RANK, but not the place on the host.
    if HYDRA.rank in environment and (HYDRA.local_rank in environment or not in_step):
        return HYDRA
    if in_step and SLURM.rank in environment:
        return SLURM
    return PMIX if PMIX.rank in environment else None


def _numbers(environment: Mapping[str, str], counting: Counting) -> tuple[dict[str, int], list[str]]:
    """Return RANK, WORLD_SIZE and LOCAL_RANK, and what is wrong with them."""
    names = {"RANK": counting.rank, "WORLD_SIZE": counting.size, "LOCAL_RANK": counting.local_rank}
    found, problems = {}, []
    for ours, theirs in names.items():
        value = environment.get(theirs)
        if value is None:
            problems.append(
                f"{theirs}: is not set, though {counting.launcher} has set {counting.rank}; set it to {_MEANING[ours]}"
            )
        elif not value.isdecimal():
            problems.append(f"{theirs}: must be a whole number, got '{value}'; {_START_AGAIN}")
        else:
            found[ours] = int(value)
    return found, problems


def _is_one_host(environment: Mapping[str, str], counting: Counting, size: int) -> bool:
    if counting is SLURM:
        return environment.get("SLURM_STEP_NUM_NODES", environment.get("SLURM_NNODES")) == "1"
    return size == 1 or environment.get(counting.local_size) == str(size)


def _meeting(
    environment: Mapping[str, str], counting: Counting, is_one_host: bool, parent: int
) -> tuple[dict[str, str], list[str]]:
    """Return where the ranks meet, and why they cannot."""
    problems = []
    if not is_one_host and "MASTER_ADDR" not in environment:
        how = ' (scontrol show hostnames "$SLURM_JOB_NODELIST" lists them)' if counting is SLURM else ""
        problems.append(
            f"MASTER_ADDR: is not set, and the ranks are on more than one host; set it to the first host's name{how}"
        )
    job = [environment[name] for name in counting.job if name in environment]
    if not job and is_one_host:
        job = [str(parent)]
    if not job and "MASTER_PORT" not in environment:
        problems.append(
            f"MASTER_PORT: is not set, and {counting.launcher} gives the job no number to take one by; set it to a "
            f"free port of the first host"
        )
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port_of("/".join(job)))}, problems


def port_of(job: str) -> int:
    """Return the port for the job of this name or number: the same to all that ask, another for most other jobs."""
    return FIRST_PORT + int.from_bytes(hashlib.sha256(job.encode()).digest()[:8], "big") % PORTS
