"""Variables of mpirun and srun as those of torch.distributed, and what is wrong with them."""

import pytest

from gptdist.device.rank_environment import FIRST_PORT, PORTS, rank_environment
from gptdist.errors import LaunchError

OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "PMIX_RANK": "3",
    "PMIX_NAMESPACE": "3670017",
}
MPICH = {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
SRUN = {
    "SLURM_PROCID": "2",
    "SLURM_NTASKS": "4",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_NODES": "2",
}


def _added(environment: dict[str, str], parent: int = 100) -> dict[str, str]:
    return rank_environment(environment, parent=parent)


def _problems(environment: dict[str, str]) -> str:
    with pytest.raises(LaunchError) as failed:
        _added(environment)
    return str(failed.value)


def test_open_mpi() -> None:
    added = _added(OPEN_MPI)
    port = int(added.pop("MASTER_PORT"))
    assert added == {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "3", "MASTER_ADDR": "127.0.0.1"}
    assert FIRST_PORT <= port < FIRST_PORT + PORTS


def test_mpich_and_intel_mpi() -> None:
    added = _added(MPICH)
    assert (added["RANK"], added["WORLD_SIZE"], added["LOCAL_RANK"]) == ("1", "2", "1")


def test_srun() -> None:
    added = _added(SRUN | {"MASTER_ADDR": "node7"})
    assert (added["RANK"], added["WORLD_SIZE"], added["LOCAL_RANK"]) == ("2", "4", "0")
    assert "MASTER_ADDR" not in added


def test_srun_with_pmi2_or_pmix_is_srun() -> None:
    for more in ({"PMI_RANK": "2", "PMI_SIZE": "4"}, {"PMIX_RANK": "2", "PMIX_NAMESPACE": "slurm.pmix.77.0"}):
        assert _added(SRUN | more | {"MASTER_ADDR": "node7"}) == _added(SRUN | {"MASTER_ADDR": "node7"})


def test_pmix_alone_needs_the_size() -> None:
    alone = {"PMIX_RANK": "1", "PMIX_NAMESPACE": "5"}
    assert _problems(alone).splitlines() == [
        "WORLD_SIZE: is not set, though PMIx has set PMIX_RANK; set it to how many ranks there are",
        "LOCAL_RANK: is not set, though PMIx has set PMIX_RANK; set it to the rank's place on its host",
    ]
    added = _added(alone | {"WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"})
    assert added == {"RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": added["MASTER_PORT"]}


def test_the_innermost_launcher_counts() -> None:
    inherited = {**SRUN, "PMI_RANK": "0", "PMI_SIZE": "1"}
    assert _added(inherited | OPEN_MPI) == _added(OPEN_MPI)
    assert _added(inherited | MPICH)["WORLD_SIZE"] == "2"


def test_torchrun_within_a_launcher_has_said_it_already() -> None:
    torchrun = {"RANK": "7", "WORLD_SIZE": "8", "LOCAL_RANK": "3", "TORCHELASTIC_RUN_ID": "x"}
    assert _added(OPEN_MPI | torchrun) == {}
    assert _added(torchrun) == {}
    assert _added({}) == {}


def test_a_job_script_of_slurm_is_no_rank() -> None:
    script = {name: value for name, value in SRUN.items() if "STEP" not in name}
    assert _added(script) == {}
    assert _added(SRUN | {"RANK": "0", "WORLD_SIZE": "1"}) == {}, "of a launcher within a step"


def test_ranks_of_a_job_agree_on_a_port_and_jobs_differ() -> None:
    def port(environment: dict[str, str], parent: int = 100) -> str:
        return _added({"MASTER_ADDR": "node7"} | environment, parent)["MASTER_PORT"]

    other_rank = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
    assert port(OPEN_MPI) == port(OPEN_MPI | other_rank, parent=101), "whoever started it"
    assert port(OPEN_MPI) != port(OPEN_MPI | {"PMIX_NAMESPACE": "3670018"})
    assert port(SRUN) != port(SRUN | {"SLURM_STEP_ID": "1"}) != port(SRUN | {"SLURM_JOB_ID": "78"})
    assert port(MPICH) == port(MPICH | {"PMI_RANK": "0", "MPI_LOCALRANKID": "0"})
    assert port(MPICH) != port(MPICH, parent=101)
    assert "MASTER_PORT" not in _added(OPEN_MPI | {"MASTER_PORT": "5"})


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        (
            OPEN_MPI | {"OMPI_COMM_WORLD_RANK": "4"},
            "OMPI_COMM_WORLD_RANK: 4 is no rank of OMPI_COMM_WORLD_SIZE=4; start the ranks with mpirun, srun or "
            "torchrun",
        ),
        (OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "four"}, "OMPI_COMM_WORLD_SIZE: must be a whole number, got 'four'; "),
        (MPICH | {"PMI_RANK": "0"}, "MPI_LOCALRANKID: 1 is no place of rank 0 on its host; "),
        (OPEN_MPI | {"WORLD_SIZE": "8"}, "WORLD_SIZE: is 8, but Open MPI says 4; unset WORLD_SIZE"),
        (OPEN_MPI | {"RANK": "0"}, "RANK: is 0, but Open MPI says 3; unset RANK"),
        (
            OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
            "MASTER_ADDR: is not set, and the ranks are on more than one host; set it to the first host's name",
        ),
        (SRUN, '(scontrol show hostnames "$SLURM_JOB_NODELIST" lists them)'),
        (
            MPICH | {"MPI_LOCALNRANKS": "1", "MPI_LOCALRANKID": "0", "MASTER_ADDR": "node7"},
            "MASTER_PORT: is not set, and MPICH or Intel MPI gives the job no number to take one by; set it to a free",
        ),
    ],
)
def test_one_line_says_what_is_wrong(environment: dict[str, str], problem: str) -> None:
    found = _problems(environment)
    assert problem in found
    assert "\n" not in found


def test_all_problems_at_once() -> None:
    broken = OPEN_MPI | {"OMPI_COMM_WORLD_RANK": "9", "OMPI_COMM_WORLD_LOCAL_RANK": "10", "WORLD_SIZE": "8"}
    assert len(_problems(broken).splitlines()) == 3
