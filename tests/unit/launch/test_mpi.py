"""What a launch with mpirun would run, word for word, and what it refuses."""

import shlex
import sys
from pathlib import Path

import pytest

from gptdist.cli.main import main
from gptdist.config.load import load_config
from gptdist.config.run import RunConfig
from launch.job import Job
from launch.mpi import Hosts, mpi_command
from tests.support.ranks import repository

DEMO = repository() / "configs" / "runs" / "demo-cpu.yaml"


def test_command_word_for_word() -> None:
    config = load_config(RunConfig, DEMO, ["training.deterministic=true"])
    hosts = Hosts(3, Path("my hosts"), "node 1")
    words = ["name=a b", "seed=$(id)"]
    command = mpi_command(Job(config, Path("my run.yaml"), tuple(words)), hosts=hosts, cores=8, as_root=True)
    assert command.environment == ()
    assert command.shell_line() == (
        "mpirun --allow-run-as-root --hostfile 'my hosts' -np 6 --map-by ppr:2:node --oversubscribe --bind-to none "
        "--mca odls_base_sigkill_timeout 5 -x OMP_NUM_THREADS=4 -x CUBLAS_WORKSPACE_CONFIG=:4096:8 "
        f"-x 'MASTER_ADDR=node 1' {shlex.quote(sys.executable)} -m gptdist.train 'my run.yaml' 'name=a b' 'seed=$(id)'"
    )


def test_dry_run_prints_and_starts_nothing(capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    assert main(["launch", "mpi", str(DEMO), "--dry-run", "seed=5"]) == 0
    shown = shlex.split(capsys.readouterr().out)
    assert (shown[0], shown[-2:]) == ("mpirun", [str(DEMO), "seed=5"])
    assert "--hostfile" not in shown
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "mpirun: is not installed here; load the module of Open MPI, or use another back end"),
        (["--nodes=2", "batch.global_batch_size=32"], "--head: the ranks of 2 hosts meet on that of rank 0; name it"),
        (["--hostfile=no hosts"], "--hostfile: no hosts: no such file"),
        (["--nodes=0"], "--nodes: must be at least 1, got 0"),
        (["--nodes=7", "--head=n1"], "demo-cpu.yaml: batch.global_batch_size (16) is no multiple of"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], problem: str, capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    assert main(["launch", "mpi", str(DEMO), *words]) == 2
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 1
    assert problem in shown[0]


def test_another_mpirun_is_refused_by_name(capsys, tmp_path: Path, monkeypatch) -> None:
    mpirun = tmp_path / "mpirun"
    mpirun.write_text("#!/bin/sh\necho HYDRA build details:\n")
    mpirun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert main(["launch", "mpi", str(DEMO)]) == 2
    assert "mpirun: must be Open MPI's, got 'HYDRA build details:'; start " in capsys.readouterr().err
