"""Real training on hosts that die: the losses are those of one machine, and whoever was lost is known."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gptdist.checkpoint.audit import audit
from gptdist.errors import EXIT_REQUEUE, EXIT_USER_ERROR
from gptdist.telemetry.ledger import read_json_lines
from launch.nodes import blames, excluded
from tests.support.datasets import GPT2, run_tree
from tests.support.hosts import LOGIN, NODE_LOCAL, Cluster, hosts, missing_programs
from tests.support.ranks import repository

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"hosts need {missing_programs()}")

STEPS = 100
LONG_SECONDS = 240


class Launched:
    """A launch from the login host, and what can be seen of it."""

    def __init__(self, cluster: Cluster, folder: Path, name: str, names: list[str], **training: float) -> None:
        self.cluster, self.folder, self.run = cluster, folder, folder / name
        self.config, self.hostfile, self.log = (folder / f"{name}.{end}" for end in ("yaml", "hosts", "log"))
        self.config.write_text(yaml.safe_dump(_tree(folder, name, ranks=1, **training)))
        self.hostfile.write_text("".join(f"{host} slots=1\n" for host in names))
        self.process: subprocess.Popen[bytes] | None = None

    def argv(self, *words: str) -> list[str]:
        command = [sys.executable, "-m", "gptdist.cli.main", "launch", "hostfile", str(self.config)]
        return [*command, *words, "--hostfile", str(self.hostfile)]

    def start(self, *words: str) -> None:
        with self.log.open("ab") as log:
            self.process = self.cluster.popen(
                LOGIN, self.argv(*words), cwd=repository(), stdout=log, stderr=subprocess.STDOUT
            )

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(LONG_SECONDS)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def records(self) -> list[dict[str, Any]]:
        return [record for record in read_json_lines(self.run / "metrics.jsonl") if record["kind"] == "train"]

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LONG_SECONDS
        while not condition():
            assert self.process is not None
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)

    def until_step(self, step: int) -> None:
        self.until(lambda: max((record["step"] for record in self.records()), default=0) >= step)

    def until_it_trains_again(self) -> None:
        """Wait for a step of an attempt that is newer than all so far."""
        newest = max(record["attempt"] for record in self.records())
        self.until(lambda: max(record["attempt"] for record in self.records()) > newest)

    def ranks(self, host: str) -> list[int]:
        """Return the processes of ranks on a host, by their numbers here."""
        lines = self.cluster.processes(host)
        return [pid for pid, line in lines.items() if "-m gptdist.train" in line and "launch.torchrun" not in line]

    def check_losses(self, expected: dict[int, float]) -> None:
        """Every step of every attempt, the repeated ones too, has the loss of the uninterrupted run."""
        for record in self.records():
            assert record["loss"] == expected[record["step"]], f"attempt {record['attempt']} step {record['step']}"
        assert {record["step"] for record in self.records()} == set(range(1, STEPS + 1))
        assert not audit(self.run).problems


def _tree(folder: Path, name: str, *, ranks: int, **training: float) -> dict[str, Any]:
    return run_tree(
        folder,
        name=name,
        run_dir=str(folder / name),
        model=GPT2 | {"hidden_dropout": 0.1},
        training={"train_steps": STEPS, "collective_timeout_seconds": 600.0, **training},
        intervals={"log_steps": 1, "save_steps": 5},
        launch={"ranks_per_node": ranks, "threads_per_rank": 1, "restart_wait_seconds": 0.1},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostfile")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with hosts(tmp_path_factory.mktemp("hosts"), count=3) as running:
        yield running


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[int, float]:
    """Return the loss of each step, of two ranks on one machine without interruption."""
    config = folder / "whole.yaml"
    config.write_text(yaml.safe_dump(_tree(folder, "whole", ranks=2)))
    argv = [sys.executable, "-m", "gptdist.cli.main", "launch", "local", str(config)]
    done = subprocess.run(argv, cwd=repository(), capture_output=True, text=True, timeout=LONG_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    records = read_json_lines(folder / "whole" / "metrics.jsonl")
    return {record["step"]: record["loss"] for record in records if record["kind"] == "train"}


def test_two_hosts_train_as_one_through_a_signal_and_the_launchers_death(cluster, folder, expected) -> None:
    launched = Launched(cluster, folder, "plain", ["node1", "node2"])
    launched.start()
    launched.until_step(3)
    cluster.send_signal(launched.process, signal.SIGTERM)
    assert launched.wait() == EXIT_REQUEUE, launched.said
    assert [event["event"] for event in read_json_lines(launched.run / "ledger.jsonl")][-1] == "stopped"

    launched.start()
    launched.until_it_trains_again()
    cluster.send_signal(launched.process, signal.SIGKILL)
    launched.wait()
    deadline = time.monotonic() + LONG_SECONDS
    while any("-m gptdist.train" in line for host in ("node1", "node2") for line in cluster.processes(host).values()):
        assert time.monotonic() < deadline, "ranks, or those that look after them, live on without their launcher"
        time.sleep(0.1)

    launched.start()
    assert launched.wait() == 0, launched.said
    launched.check_losses(expected)


def test_a_dead_rank_and_a_dead_host_with_a_spare(cluster, folder, expected) -> None:
    launched = Launched(cluster, folder, "dying", ["node1", "node2", "node3"])
    launched.start("--nodes=2")
    launched.until_step(8)
    begin = time.time()
    os.kill(launched.ranks("node2")[0], signal.SIGKILL)
    launched.until_it_trains_again()
    ended = [event for event in read_json_lines(launched.run / "ledger.jsonl") if event["event"] == "ended"]
    print("rank killed: known after", ended[-1]["time"] - begin, "trains again after", time.time() - begin)
    assert "rank 1 on node2 died first" in launched.said
    assert not excluded(launched.run), "one dead rank is no reason"

    begin = time.time()
    cluster.crash("node2")
    launched.until_it_trains_again()
    lost = [one for one in blames(launched.run) if one.kind == "lost"]
    print("host off: known after", lost[-1].time - begin, "trains again after", time.time() - begin)
    assert launched.wait() == 0, launched.said
    assert "without node2, with node3 instead: goes on from the newest checkpoint on 2 nodes (2 ranks)" in launched.said
    assert list(excluded(launched.run)) == ["node2"]
    assert "\0" not in launched.said, "signs of life are not for the console"
    logs = launched.run / "logs"
    assert (logs / "launch_0003" / "node_node3.log").exists()
    assert "node2 was lost, after step" in launched.said
    assert "Traceback" not in launched.said, "of those that missed the first"
    launched.check_losses(expected)
    cluster.boot("node2")


def test_a_cut_host_without_a_spare(cluster, folder, expected) -> None:
    launched = Launched(cluster, folder, "cut", ["node1", "node2"])
    launched.start("--min-nodes=1")
    launched.until_step(8)
    begin = time.time()
    cluster.cut("node1")  # with rank 0, which holds the run's lock
    launched.until_it_trains_again()
    print("link cut: known after", blames(launched.run)[-1].time - begin, "trains again after", time.time() - begin)
    launched.until(lambda: not launched.ranks("node1"))  # it sees the folder yet, and that others go on
    assert launched.wait() == 0, launched.said
    assert "without node1: goes on from the newest checkpoint on 1 node (1 rank) instead of 2" in launched.said
    assert {one.node: one.kind for one in blames(launched.run)} == {"node1": "lost"}
    cluster.heal("node1")
    assert not audit(launched.run).problems
    records = {record["step"]: record for record in launched.records()}
    assert set(records) == set(range(1, STEPS + 1))
    assert all(abs(record["loss"] - expected[step]) < 1e-4 for step, record in records.items())


def _refused(cluster: Cluster, launched: Launched, *words: str) -> list[str]:
    done = cluster.run(LOGIN, launched.argv(*words), cwd=repository(), timeout=LONG_SECONDS)
    assert done.returncode == EXIT_USER_ERROR, done.stdout + done.stderr
    assert not (launched.run / "logs").exists(), "nothing was begun"
    prefix = "gptdist launch: error: "
    assert all(line.startswith(prefix) for line in done.stderr.splitlines()), done.stderr
    return [line.removeprefix(prefix) for line in done.stderr.splitlines()]


def test_hosts_that_cannot_be_used_are_named_all_at_once(cluster, folder) -> None:
    launched = Launched(cluster, folder, "unreachable", ["node1", "node2", "node3", "node9"])
    cluster.forge_key("node2")
    cluster.cut("node3")
    try:
        said = _refused(cluster, launched)
    finally:
        cluster.heal("node3")
        cluster.remember_key("node2")
    assert len(said) == 4
    assert said[0].startswith("node2: reach: shows another host key than the known one (/root/.ssh/known_hosts:")
    assert said[1].startswith("node3: reach: does not answer (ssh: connect to host node3 port 22: ")
    assert said[2] == "node9: reach: no such name here; mend the hostfile, /etc/hosts or DNS"
    assert said[3] == "node1: names: does not know node9; mend its /etc/hosts or DNS"


def test_a_folder_that_is_each_hosts_own_is_refused(cluster, folder) -> None:
    launched = Launched(cluster, folder, "unshared", ["node1"])
    for said in _refused(cluster, launched, f"run_dir={NODE_LOCAL}/run"):
        assert said.startswith("node1: folder: "), said


def test_a_mistake_in_the_hostfile_is_one_line(cluster, folder) -> None:
    twice = Launched(cluster, folder, "twice", ["node1", "node2", "node1"])
    name = twice.hostfile
    assert _refused(cluster, twice) == [
        f"{name}:3: node1 is on line 1 already; name each host once, with all of its slots"
    ]
    few = Launched(cluster, folder, "few", ["node1", "node2"])
    (said,) = _refused(cluster, few, "launch.ranks_per_node=2")
    assert "node1 and 1 more: slots=1, but launch.ranks_per_node is 2 on every host" in said
    assert _refused(cluster, few, "--nodes=4") == ["--nodes: 4 are more than the 2 hosts of the hostfile; add some"]
