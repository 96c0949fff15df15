"""Real ranks under Open MPI and Slurm have the losses of a run on this machine, whatever happens to them on the way."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from gptdist.checkpoint.audit import audit
from gptdist.errors import EXIT_REQUEUE
from gptdist.telemetry.ledger import read_json_lines
from launch.slurm_control import Control
from tests.support import slurm_cluster
from tests.support.datasets import GPT2, run_tree
from tests.support.hosts import hosts, missing_programs
from tests.support.ranks import repository

needs_mpirun = pytest.mark.skipif(shutil.which("mpirun") is None, reason="Open MPI is not installed (openmpi-bin)")
needs_slurm = pytest.mark.skipif(
    bool(slurm_cluster.missing_programs()), reason=f"Slurm cannot run here: no {slurm_cluster.missing_programs()}"
)
STEPS = 150
_QUICK = ("--output=/dev/null", "--wrap=sleep 1")
WAIT_SECONDS = 200


def _command(folder: Path, backend: str, *words: str) -> list[str]:
    config = folder / "run.yaml"
    tree = run_tree(
        folder,
        model=GPT2 | {"hidden_dropout": 0.1},
        training={"train_steps": STEPS},
        intervals={"log_steps": 1},
        launch={"ranks_per_node": 2, "threads_per_rank": 1, "restart_wait_seconds": 0.5},
    )
    config.write_text(yaml.safe_dump(tree))
    argv = [sys.executable, "-m", "gptdist.cli.main", "launch", backend, str(config)]
    return [*argv, f"run_dir={folder / backend}", *words]


def _launch(folder: Path, backend: str) -> subprocess.Popen:
    log = (folder / f"{backend}.log").open("a")
    return subprocess.Popen(_command(folder, backend), cwd=repository(), stdout=log, stderr=subprocess.STDOUT)


def _records(run: Path) -> list[dict]:
    return [record for record in read_json_lines(run / "metrics.jsonl") if record["kind"] == "train"]


def _newest_step(run: Path) -> int:
    return max((record["step"] for record in _records(run)), default=0)


def _wait_for_step(run: Path, process: subprocess.Popen, step: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while _newest_step(run) < step:
        assert process.poll() is None, run.with_suffix(".log").read_text()
        assert time.monotonic() < deadline, run.with_suffix(".log").read_text()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def under_torchrun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, float]]:
    """Return a folder for runs, and the loss of each step as two ranks under torchrun have it."""
    folder = tmp_path_factory.mktemp("clusters")
    assert _launch(folder, "local").wait(WAIT_SECONDS) == 0, (folder / "local.log").read_text()
    return folder, {record["step"]: record["loss"] for record in _records(folder / "local")}


@needs_mpirun
def test_mpirun_gives_the_losses_of_torchrun_through_a_signal_and_a_kill(under_torchrun) -> None:
    folder, expected = under_torchrun
    run, log = folder / "mpi", folder / "mpi.log"
    process = _launch(folder, "mpi")
    _wait_for_step(run, process, 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_SECONDS) == EXIT_REQUEUE, log.read_text()
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


@needs_mpirun
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


class Slurm:
    """The cluster, as these tests use it."""

    def __init__(self, config: Path) -> None:
        self.conf = str(config)
        self._environment = {**os.environ, "SLURM_CONF": self.conf}

    def call(self, *argv: str) -> str:
        done = subprocess.run(
            argv, cwd=repository(), env=self._environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{argv} {done}"
        return done.stdout.strip()

    def run_code(self, folder: Path, code: str) -> "SlurmRun":
        """Submit a script that is Python ``code``; what it says is in ``said-`` and its number."""
        script, start = folder / "script.sh", shlex.join([sys.executable, "-c", code])
        script.write_text(f"#!/bin/bash\n#SBATCH --output={folder}/said-%j\nexec {start}\n")
        return SlurmRun(self, folder, self.call("sbatch", "--parsable", "--nodelist=n1", str(script)))

    def tell_script(self, job: str, signal_name: str) -> None:
        """Do as the controller does before the time limit; scancel's status is no guide if the job ends at once."""
        argv = ["scancel", "--batch", f"--signal={signal_name}", job]
        subprocess.run(argv, env=self._environment, timeout=60, check=False)

    def submit(self, folder: Path, name: str, *words: str) -> "SlurmRun":
        run = folder / name
        argv = _command(folder, "slurm", "launch.ranks_per_node=1", f"run_dir={run}", "--nodes=2", *words)
        number = re.search(r"job (\d+) is submitted", self.call(*argv))
        assert number is not None
        return SlurmRun(self, run, number[1])


@dataclass
class SlurmRun:
    """A run, and its job."""

    slurm: Slurm
    folder: Path
    job: str

    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted((self.folder / "launch").glob("*.out")))

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.slurm.call("scontrol", "show", "job", self.job) + self.log()
            time.sleep(0.05)

    def wait_for_step(self, step: int) -> None:
        self.wait(lambda: _newest_step(self.folder) >= step)

    def fact(self, name: str, job: str | None = None) -> str:
        shown = self.slurm.call("scontrol", "show", "job", job or self.job, "--oneliner")
        found = re.search(rf"\b{name}=(.*?)(?= \w+(?:/\w+)*=|$)", shown)
        assert found is not None, shown
        return found[1]

    def ranks(self) -> list[psutil.Process]:
        argv = ["-m", "gptdist.train", str(self.folder.parent / "run.yaml")]
        return [one for one in psutil.process_iter(["cmdline"]) if argv == (one.info["cmdline"] or [])[2:5]]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with slurm_cluster.slurm_cluster(tmp_path_factory.mktemp("slurm")) as config:
        yield Slurm(config)


@needs_slurm
def test_slurm_through_a_killed_rank_and_a_preemption(under_torchrun, slurm: Slurm) -> None:
    folder, expected = under_torchrun
    name = f"""it's "my" run $(touch {folder}/executed) `touch {folder}/executed` #1"""
    run = slurm.submit(folder, "slurm", f"--name={name}", "intervals.save_steps=20")
    run.wait_for_step(25)
    assert run.fact("JobName") == name
    run.ranks()[-1].kill()
    run.wait(lambda: len({record["attempt"] for record in _records(run.folder)}) == 2)
    assert run.fact("Restarts") == "0", "the same job goes on"

    urgent = slurm.call("sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive", *_QUICK)
    run.wait(lambda: run.fact("JobState") == "PENDING" and run.fact("JobState", urgent) == "COMPLETED")
    saved = read_json_lines(run.folder / "ledger.jsonl")[-1]
    assert (saved["event"], saved["reason"]) == ("stopped", "signal"), run.log()
    assert saved["step"] < STEPS, "the preemption has come too late to show anything"
    slurm.call("scontrol", "update", f"JobId={run.job}", "StartTime=now")  # otherwise it waits for two minutes
    run.wait(lambda: run.fact("JobState") == "COMPLETED")
    assert all(record["loss"] == expected[record["step"]] for record in _records(run.folder)), run.log()
    assert _newest_step(run.folder) == STEPS
    found = audit(run.folder)
    assert not found.problems
    assert len(found.line) == 3
    assert len(re.findall(r" (died|failed) first, after step ", run.log())) == 1, "the first failure, once"
    assert not (folder / "executed").exists()


@needs_slurm
def test_what_the_controller_is_asked(slurm: Slurm, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SLURM_CONF", slurm.conf)
    control = Control()
    assert control.hostnames("n[1-2]") == ("n1", "n2")
    assert control.address("n2") == "127.0.0.1"
    slurm.call("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
    assert control.down(("n1", "n2")) == ["n2"]
    slurm.call("scontrol", "update", "NodeName=n2", "State=RESUME")
    deadline = time.monotonic() + WAIT_SECONDS
    while control.down(("n1", "n2")):  # until the daemon has said that it is there
        assert time.monotonic() < deadline
        time.sleep(0.2)
    rest = slurm.call("sbatch", "--parsable", "--hold", "--array=1-3%1", *_QUICK)
    for node in ("n2", "n1"):
        control.exclude(f"{rest}_3", [node])
    assert SlurmRun(slurm, tmp_path, f"{rest}_3").fact("ExcNodeList") == "n2,n1"
    slurm.call("scancel", rest)

    code = "import os, signal; from launch.slurm_control import Control as C; "
    again = "C().requeue(os.environ['SLURM_JOB_ID'], print, without=['n1'])"
    moved = slurm.run_code(tmp_path, code + again)
    moved.wait(lambda: (moved.fact("JobState"), moved.fact("ExcNodeList")) == ("PENDING", "n1"))
    slurm.call("scancel", moved.job)

    code += f"signal.signal(15, lambda *_: {again}); print('here', flush=True); signal.pause()"
    cancelled = slurm.run_code(tmp_path, code)
    said = tmp_path / f"said-{cancelled.job}"
    cancelled.wait(lambda: said.exists() and "here" in said.read_text())
    slurm.call("scancel", cancelled.job)
    cancelled.wait(lambda: "is not requeued: Slurm is ending it (C" in said.read_text())
    cancelled.wait(lambda: cancelled.fact("JobState") == "CANCELLED")


@needs_slurm
def test_a_chain_of_slurm_jobs_goes_on_where_the_one_before_has_stopped(under_torchrun, slurm: Slurm) -> None:
    folder, expected = under_torchrun
    run = slurm.submit(folder, "chain", "--chain=3")
    run.wait_for_step(3)
    slurm.tell_script(f"{run.job}_1", "USR1")
    for element in (1, 2, 3):
        run.wait(lambda element=element: run.fact("JobState", f"{run.job}_{element}") == "COMPLETED")
    assert {record["step"]: record["loss"] for record in _records(run.folder)} == expected
    assert not audit(run.folder).problems
    said = (run.folder / "launch" / f"slurm-{run.job}_3.out").read_text()
    assert said == f"gptdist: test: is done, at step {STEPS}\n"
