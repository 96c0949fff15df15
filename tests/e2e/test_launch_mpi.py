"""Real ranks under Open MPI: the same losses as under torchrun, saved on a signal, and none left behind."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from gptdist.telemetry.ledger import read_json_lines
from tests.support.datasets import GPT2, run_tree
from tests.support.hosts import hosts, missing_programs
from tests.support.ranks import repository

pytestmark = pytest.mark.skipif(shutil.which("mpirun") is None, reason="Open MPI is not installed (openmpi-bin)")

STEPS = 150
WAIT_SECONDS = 200


def _command(folder: Path, backend: str, *words: str) -> list[str]:
    config = folder / "run.yaml"
    tree = run_tree(
        folder,
        model=GPT2 | {"hidden_dropout": 0.1},
        training={"train_steps": STEPS},
        intervals={"log_steps": 1},
        launch={"ranks_per_node": 2, "threads_per_rank": 1},
    )
    config.write_text(yaml.safe_dump(tree))
    argv = [sys.executable, "-m", "gptdist.cli.main", "launch", backend, str(config)]
    return [*argv, f"run_dir={folder / backend}", *words]


def _launch(folder: Path, backend: str) -> subprocess.Popen:
    log = (folder / f"{backend}.log").open("a")
    return subprocess.Popen(_command(folder, backend), cwd=repository(), stdout=log, stderr=subprocess.STDOUT)


def _records(run: Path) -> list[dict]:
    return [record for record in read_json_lines(run / "metrics.jsonl") if record["kind"] == "train"]


def _wait_for_step(run: Path, process: subprocess.Popen, step: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while max((record["step"] for record in _records(run)), default=0) < step:
        assert process.poll() is None, run.with_suffix(".log").read_text()
        assert time.monotonic() < deadline, run.with_suffix(".log").read_text()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def under_torchrun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, float]]:
    """Return a folder for runs, and the loss of each step as two ranks under torchrun have it."""
    folder = tmp_path_factory.mktemp("mpi")
    assert _launch(folder, "local").wait(WAIT_SECONDS) == 0, (folder / "local.log").read_text()
    return folder, {record["step"]: record["loss"] for record in _records(folder / "local")}


def test_mpirun_gives_the_losses_of_torchrun_through_a_signal_and_a_kill(under_torchrun) -> None:
    folder, expected = under_torchrun
    run, log = folder / "mpi", folder / "mpi.log"
    process = _launch(folder, "mpi")
    _wait_for_step(run, process, 2)
    process.send_signal(signal.SIGTERM)
    process.wait(WAIT_SECONDS)
    assert [event["event"] for event in read_json_lines(run / "ledger.jsonl")] == ["start", "checkpoint", "stopped"]
    stopped = max(record["step"] for record in _records(run))

    process = _launch(folder, "mpi")
    _wait_for_step(run, process, stopped + 1)
    (mpirun,) = psutil.Process(process.pid).children()
    ranks = mpirun.children()
    mpirun.kill()
    assert process.wait(WAIT_SECONDS) == 1
    _, alive = psutil.wait_procs([rank for rank in ranks if rank.is_running()], timeout=30)
    assert not alive, "a rank lives on without mpirun"

    assert _launch(folder, "mpi").wait(WAIT_SECONDS) == 0, log.read_text()
    records = _records(run)
    assert all(record["loss"] == expected[record["step"]] for record in records)
    assert {record["step"] for record in records} == set(range(1, STEPS + 1))


@pytest.mark.skipif(bool(missing_programs()), reason=f"hosts need {missing_programs()}")
def test_so_do_two_hosts(under_torchrun, tmp_path: Path) -> None:
    folder, expected = under_torchrun
    (tmp_path / "hostfile").write_text("node2\nnode1\n")
    words = ["--nodes=2", "--head=node1", f"--hostfile={tmp_path}/hostfile", "launch.ranks_per_node=1"]
    argv = _command(folder, "mpi", *words, f"run_dir={folder / 'hosts'}")
    with hosts(tmp_path) as cluster:
        done = cluster.run("node1", argv, cwd=repository(), timeout=WAIT_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {record["step"]: record["loss"] for record in _records(folder / "hosts")} == expected
