"""Where a run goes on, and what starts it on each host, word for word."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gptdist.cli.main import main
from gptdist.config.load import load_config
from gptdist.config.run import RunConfig
from gptdist.errors import LaunchError
from gptdist.telemetry.rank_log import Failure
from launch.hostfile_job import HostfileJob, Hosts, host_commands, legal_size
from launch.job import Job
from launch.nodes import blame, excluded
from launch.outcome import Outcome
from launch.reap import left_of, reap
from launch.ssh import passed_on
from tests.support.golden import check_golden
from tests.support.ranks import repository

DEMO = repository() / "configs" / "runs" / "demo-cpu.yaml"
SMALL = ("batch.micro_batch_size=1", "launch.ranks_per_node=2")


def job(folder: Path, *words: str) -> Job:
    words = (*SMALL, f"run_dir={folder / 'run'}", *words)
    return Job(load_config(RunConfig, DEMO, list(words)), Path("my run.yaml"), words)


def test_dry_run_word_for_word(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", {"PATH": os.environ["PATH"], "NCCL_DEBUG": "INFO", "SECRET": "x", "MINE": "a b"})
    Path("hosts.txt").write_text("node1 slots=2\nnode2 slots=2\nspare slots=2\n")
    words = [str(DEMO), *SMALL, "name=a.b", "seed=5"]
    assert main(["launch", "hostfile", *words, "--hostfile=hosts.txt", "--nodes=2", "--export=MINE", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    monkeypatch.undo()
    assert "SECRET" not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["hosts.txt"], "nothing was started"
    for place, name in ((str(tmp_path), "FOLDER"), (sys.executable, "PYTHON"), (str(repository()), "HERE")):
        shown = shown.replace(place, name)
    check_golden("launch_hostfile.txt", re.sub(r"gptdist-\d+-[0-9a-f]{16}", "gptdist-UID-DIGEST", shown))


def test_each_attempt_has_a_port_of_its_own(tmp_path: Path) -> None:
    def port(launch: str) -> str:
        (argv,) = host_commands(job(tmp_path), ["n1"], tmp_path / launch, head_port=4000).values()
        found = re.search(r"--master-port=(\d+)", argv[-1])
        assert found is not None
        return found[1]

    assert [port("launch_0001"), port("launch_0002"), port("launch_0017")] == ["4000", "4001", "4000"]


def test_variables_of_code_and_network_are_passed_on() -> None:
    here = {"NCCL_SOCKET_IFNAME": "ib0", "PYTHONPATH": "/a", "HOME": "/root", "AWS_SECRET": "s", "WANTED": "1"}
    assert passed_on(here, ["WANTED"]) == (("NCCL_SOCKET_IFNAME", "ib0"), ("PYTHONPATH", "/a"), ("WANTED", "1"))


@pytest.mark.parametrize(
    ("nodes", "min_nodes", "available", "expected"),
    [(4, 1, 9, 4), (4, 1, 3, 2), (4, 2, 3, 2), (4, 3, 3, None), (4, 4, 3, None), (4, 1, 0, None)],
)
def test_the_largest_size_that_the_batch_can_be_split_over(
    tmp_path: Path, nodes: int, min_nodes: int, available: int, expected: int | None
) -> None:
    """16 samples a step are no multiple of 3 nodes' 6 ranks."""
    hosts = Hosts(tuple("abcdefghi"), nodes, min_nodes)
    assert legal_size(job(tmp_path).config, hosts, available) == expected


def test_numbers_that_cannot_be() -> None:
    assert not Hosts(("a", "b"), 2, 1).problems()
    assert [problem.split(":")[0] for problem in Hosts(("a",), 2, 3, 0).problems()] == [
        "--nodes",
        "--min-nodes",
        "--head-port",
    ]


def outcome(kind: str, *nodes: str) -> Outcome:
    return Outcome(1, 3, tuple(Failure(kind, None, node, 1.0, 3, "data", "why") for node in nodes))  # type: ignore[arg-type] # of a parameter


def launch(folder: Path, hosts: Hosts) -> tuple[HostfileJob, list[str]]:
    said: list[str] = []
    return HostfileJob(job(folder), hosts, [], said.append), said


def test_lost_hosts_are_gone_and_dead_ranks_stay_where_they_were(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(HostfileJob, "_out_of_reach", lambda *_: [])  # there are no such hosts
    one, said = launch(tmp_path, Hosts(("a", "b", "c", "d"), 4, 1))
    assert one.regroup(outcome("killed", "b")) is None
    assert (one.chosen, said) == (["a", "b", "c", "d"], [])
    assert one.regroup(outcome("lost", "a")) is None
    assert one.chosen == ["b", "c"], "three nodes are no legal size"
    assert said == ["without a, d: goes on from the newest checkpoint on 2 nodes (4 ranks) instead of 4"]
    assert one.regroup(outcome("lost", "b")) is None
    assert one.chosen == ["c", "d"]
    assert list(excluded(tmp_path / "run")) == ["a", "b"]


def test_where_it_cannot_go_on_it_says_why(tmp_path: Path) -> None:
    one, _ = launch(tmp_path, Hosts(("a", "b"), 2, 2))
    assert one.regroup(outcome("lost", "b")) == "cannot go on: 1 of 2 hosts are left, and --min-nodes is 2"


def test_when_all_are_lost_at_once_nobody_is_to_blame(tmp_path: Path) -> None:
    one, _ = launch(tmp_path, Hosts(("a", "b"), 2, 1))
    assert "look at the network of this machine" in str(one.regroup(outcome("lost", "b", "a")))
    assert not excluded(tmp_path / "run")


def test_a_host_on_which_ranks_die_again_gives_way_to_a_spare_if_there_is_one(tmp_path: Path, monkeypatch) -> None:
    one, said = launch(tmp_path, Hosts(("a", "b"), 2, 1))
    assert not any(one.regroup(outcome("killed", "a")) for _ in range(2))
    assert sorted(one.chosen) == ["a", "b"]
    monkeypatch.setattr(HostfileJob, "_out_of_reach", lambda *_: [])  # there are no such hosts
    one, said = launch(tmp_path / "other", Hosts(("a", "b", "c"), 2, 1))
    assert not any(one.regroup(outcome("killed", "a")) for _ in range(2))
    assert one.chosen == ["b", "c"]
    assert said == ["without a, with c instead: goes on from the newest checkpoint on 2 nodes (4 ranks) as before"]


def test_left_out_hosts_are_named_and_too_few_are_an_error(tmp_path: Path) -> None:
    blame(tmp_path / "run", "a", "gone", kind="lost")
    one, said = launch(tmp_path, Hosts(("a", "b", "c"), 2, 2))
    assert one.chosen == ["b", "c"]
    assert said == [f"a is left out: gone; 'gptdist nodes {tmp_path}/run --forgive a' takes it back"]
    one, said = launch(tmp_path, Hosts(("a", "b"), 2, 1))
    assert said[1:] == ["begins on 1 of 2 nodes: b"]
    with pytest.raises(LaunchError, match="1 of 2 hosts are left, --min-nodes is 2; add hosts to the hostfile, or for"):
        launch(tmp_path, Hosts(("a", "b"), 2, 2))


def test_what_is_left_of_a_launch_is_ended_and_nothing_else(tmp_path: Path) -> None:
    def start(folder: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "GPTDIST_LOG_DIR": folder}
        return subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True)

    ours, other = start(f"{tmp_path}/launch_0001"), start(f"{tmp_path}/launch_00010")
    for process in (ours, other):  # there is a moment in which a new program has no environment yet
        while "GPTDIST_LOG_DIR" not in Path(f"/proc/{process.pid}/environ").read_text():
            time.sleep(0.01)
    try:
        assert left_of(f"{tmp_path}/launch_0001") == [ours.pid]
        assert reap(f"{tmp_path}/launch_0001") == 0
        assert ours.wait(10) == -9
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
