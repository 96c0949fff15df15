"""What is made of nodes' answers, and what a node says of this machine."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gptdist.cli.main import main
from gptdist.telemetry.software import code_digest, versions
from launch.preflight.code import config_digest
from launch.preflight.judge import CLOCK_SECONDS, Expected, judge
from launch.preflight.probe import MAX_PEERS, facts, gpu_rows, gpus, locks, names, port_trouble
from launch.preflight.reach import Here, Reply, module_command, reply
from launch.preflight.request import Request, own_files
from launch.preflight.verdict import CHECKS, Problem, Verdict
from launch.ssh import Answer
from tests.support.ranks import repository

HOSTS = ("node1", "node2", "node3")
REQUEST = Request(HOSTS, 29500, run_folder="/run/here", config_path="run.yaml")


def _facts(host: str, **changes: Any) -> dict[str, Any]:
    """Return the answer of a node with which nothing is wrong."""
    return {
        "name": host,
        "began": 100.5,
        "ended": 100.9,
        "python": "3.11.7",
        "versions": {"torch": "2.13.0"},
        "code": "c0de",
        "config": "c0f1",
        "names": {name: f"10.0.0.{number}" for number, name in enumerate(HOSTS)},
        "port": None,
        "interfaces": [],
        "folder": {"nonce": REQUEST.nonce, "free_bytes": 10**12, "error": None},
        "locks": [],
        "leftovers": [],
        "is_building": False,
        "gpus": None,
        **changes,
    }


EXPECTED = Expected("c0de", "c0f1", {"torch": "2.13.0"}, "3.11.7", ranks_per_node=2, device="auto")


def _judged(
    *changes: dict[str, Any], expected: Expected = EXPECTED, seen: tuple[str, ...] = HOSTS, seconds: float = 1.0
) -> list[str]:
    replies = [
        Reply(host, _facts(host, **change), None, 100.0, seconds)
        for host, change in zip(HOSTS, [*changes, {}, {}, {}][:3], strict=True)
    ]
    return [problem.line() for problem in judge(replies, REQUEST, expected, seen).problems]


def test_nothing_is_wrong() -> None:
    assert _judged() == []


def test_the_majority_is_right_and_in_a_tie_the_asker() -> None:
    old = {"versions": {"torch": "2.12.0"}}
    other = replace(EXPECTED, versions={"torch": "2.12.0"})
    says = "versions: torch is 2.12.0, but 2.13.0 on 2 of 3 hosts; install the same"
    assert _judged({}, old) == [f"node2: {says}"]
    assert _judged({}, old, expected=other) == [f"node2: {says}"]
    replies = [
        Reply("node1", _facts("node1"), None, 100.0, 1.0),
        Reply("node2", _facts("node2", **old), None, 100.0, 1),
    ]
    for expected, wrong in ((EXPECTED, "node2"), (other, "node1")):
        assert [one.host for one in judge(replies, REQUEST, expected, HOSTS).problems] == [wrong]
    assert _judged({"code": "dead"}, {"config": "beef"}, {"versions": {"torch": None}, "python": "3.11.8"}) == [
        "node1: code: code is dead, but c0de on 2 of 3 hosts; share the environment, or install the same",
        "node2: config: config is beef, but c0f1 on 2 of 3 hosts; share the folder, or copy the file",
        "node3: versions: python is 3.11.8, but 3.11.7 on 2 of 3 hosts; install the same",
        "node3: versions: torch is None, but 2.13.0 on 2 of 3 hosts; install the same",
    ]


@pytest.mark.parametrize(
    ("began", "ended", "problem"),
    [
        (100.5, 100.9, None),
        (100.5 + CLOCK_SECONDS, 100.9 + CLOCK_SECONDS, None),
        (103.5, 103.9, "is +3.2 s (± 0.3) from this machine's"),
        (97.0, 97.4, "is -3.3 s (± 0.3) from this machine's"),
    ],
)
def test_clocks_are_compared_within_what_the_round_trip_leaves_open(
    began: float, ended: float, problem: str | None
) -> None:
    lines = _judged({"began": began, "ended": ended})
    assert lines == ([] if problem is None else [f"node1: clock: {problem}; let both follow the same time server"])


def test_a_slow_round_trip_hides_a_difference() -> None:
    assert _judged({"began": 103.5, "ended": 103.9}, seconds=8.0) == []


def test_names_that_lead_astray() -> None:
    known = {name: f"10.0.0.{number}" for number, name in enumerate(HOSTS)}
    looped, astray = {**known, "node1": "127.0.1.1"}, {**known, "node1": None, "node3": "::1"}
    assert _judged({"names": looped}, {"names": astray}) == [
        "node1: names: its own name is 127.0.1.1, which gloo would tell the others; give it the address that they "
        "reach (/etc/hosts)",
        "node2: names: does not know node1; mend its /etc/hosts or DNS",
        "node2: names: takes node3 (::1) for itself; mend its /etc/hosts or DNS",
    ]


def test_locks_are_stale_unless_something_is_compiled() -> None:
    lock = {"locks": [{"path": "/x/lock", "age_seconds": 600.0}, {"path": "/y/lock", "age_seconds": 5.0}]}
    assert _judged(lock) == ["node1: locks: /x/lock: stale for 10 min, every rank that needs it would hang; delete it"]
    assert _judged(lock, {"is_building": True}) == []


def test_gpus() -> None:
    good = {"index": "0", "kind": "NVIDIA H100", "uncorrected_errors": 0}
    two = {"gpus": {"error": None, "devices": [good, {**good, "index": "1"}]}}
    assert _judged(two, two, two) == []
    bad = {"gpus": {"error": None, "devices": [good, {**good, "index": "1", "uncorrected_errors": 3}]}}
    assert _judged(bad, {"gpus": {"error": None, "devices": [good]}}, {}) == [
        "node1: device: GPU 1 (NVIDIA H100): 3 uncorrected memory errors; reset it",
        "node2: device: has 1 GPUs, but launch.ranks_per_node is 2; lower it, or leave the host out",
        "node3: device: has no nvidia-smi, but the run needs GPUs; install the driver, or leave the host out",
    ]
    assert _judged(bad, expected=replace(EXPECTED, device="cpu")) == []
    assert len(_judged(expected=replace(EXPECTED, device="cuda"))) == 3


def test_folders() -> None:
    gone = {"folder": {"nonce": None, "free_bytes": None, "error": "/run/here/.preflight-x: No such file or directory"}}
    read_only = {"folder": {"nonce": REQUEST.nonce, "free_bytes": None, "error": "/run/here/x: Read-only file system"}}
    lines = _judged(gone, read_only, seen=())
    assert lines[0].startswith("node1: folder: /run/here is another folder there (/run/here/.preflight-x: No such file")
    assert lines[1].startswith("node2: folder: /run/here cannot be written (/run/here/x: Read-only file system)")
    assert lines[2].startswith("node3: folder: what it writes to /run/here does not show here")


def test_an_answer_of_other_code_is_no_crash() -> None:
    short = _facts("node1")
    del short["locks"]
    replies = [Reply("node1", short, None, 100.0, 1.0), Reply("node2", _facts("node2"), None, 100.0, 1.0)]
    assert [one.line() for one in judge(replies, REQUEST, EXPECTED, HOSTS).problems] == [
        "node1: code: its code answers otherwise than this; install the same"
    ]
    line = json.dumps({**json.loads(REQUEST.to_json()), "new": 1})
    assert Request.from_json(line) == REQUEST


def test_what_shells_print_around_an_answer() -> None:
    command = module_command("m", "node1")
    answer = Answer("node1", 0, 'Welcome!\n{"name": "node1"}\nbye\n', "", 1.0, 2.0)
    assert reply(answer, command, Path("/")).facts == {"name": "node1"}
    silent = reply(replace(answer, output="Welcome!\n"), command, Path("/"))
    assert silent.trouble == "node1: -m m printed no answer; does the login shell end early there?"


def test_a_table_of_a_thousand_shows_who_is_wrong() -> None:
    hosts = tuple(f"node{number}" for number in range(1024))
    problems = (Problem("clock", "is +9.0 s; mend it", "node7"), Problem("reach", "is down", "node900"))
    lines = Verdict(hosts, CHECKS[:3], (*problems, Problem("folder", "is full"))).lines()
    assert lines[:4] == [
        "host     reach  code  config",
        "node7    ok     ok    ok",
        "node900  FAIL   ?     ?",
        "1,022 others: ok",
    ]
    assert lines[4:7] == ["node7: clock: is +9.0 s; mend it", "node900: reach: is down", "folder: is full"]
    assert lines[7].startswith("FAIL  usable: node0, node1,")
    assert lines[7].endswith("; excluded: node7 (clock); node900 (reach); of no single host: folder")


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_that_is_taken(listening: int) -> None:
    assert port_trouble(listening) == "Address already in use"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert port_trouble(port) is None
    assert port_trouble(port) is None, "it keeps the port"


def test_ports_and_folders_are_those_of_the_request(listening: int, tmp_path: Path) -> None:
    request = Request(("a", "b"), listening, run_folder=str(tmp_path))
    assert facts(request, "a")["port"] is not None
    assert facts(request, "b")["port"] is None
    assert facts(request, "b")["folder"]["error"].endswith("No such file or directory")
    own_files(tmp_path, request.nonce, [])[0].write_text(request.nonce)
    assert facts(request, "b")["folder"]["nonce"] == request.nonce
    assert [path.exists() for path in own_files(tmp_path, request.nonce, ["a", "b"])] == [True, False, True]


def test_few_names_are_looked_up_of_many_hosts() -> None:
    hosts = tuple(f"127.0.{number // 100}.{number % 100}" for number in range(300))
    asked = [set(names(Request(hosts, 1), host)) for host in hosts[:3]]
    assert all(len(one) <= MAX_PEERS + 2 and {hosts[0], host} <= one for one, host in zip(asked, hosts, strict=False))
    assert asked[1] != asked[2]


def test_leftovers_are_those_of_the_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    started = [
        subprocess.Popen(sleep, env={**os.environ, "GPTDIST_LOG_DIR": str(folder / "logs" / "launch_0001")})
        for folder in (run, tmp_path / "run2")
    ]
    try:
        time.sleep(0.1)  # until exec has set the environment that is looked at
        found = facts(Request(("a",), 1, run_folder=str(run)), "a")["leftovers"]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert [one["pid"] for one in found] == [started[0].pid]


def test_locks_of_extensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("py311_cpu/cpu_adam/lock", "fused/lock", "fused/build/x/lock"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    os.utime(tmp_path / "fused/lock", (time.time() - 600, time.time() - 600))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    found = {Path(lock["path"]).parent.name: lock["age_seconds"] for lock in locks()}
    assert set(found) == {"cpu_adam", "fused"}
    assert found["fused"] > 590 > found["cpu_adam"]


def test_the_driver_speaks_or_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_rows("0, NVIDIA H100 80GB HBM3, 0\n1, NVIDIA L4, [N/A]\n") == [
        {"index": "0", "kind": "NVIDIA H100 80GB HBM3", "uncorrected_errors": 0},
        {"index": "1", "kind": "NVIDIA L4", "uncorrected_errors": None},
    ]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() is None
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'Unable to determine the device handle: GPU is lost'; exit 15\n")
    smi.chmod(0o755)
    found = gpus()
    assert found is not None
    assert found["error"].startswith("nvidia-smi ended with status 15 (Unable to determine the device handle: GPU")


def test_digests_change_with_code_and_config(tmp_path: Path) -> None:
    module = tmp_path / "launch" / "a.py"
    module.parent.mkdir()
    module.write_text("a = 1\n")
    before = code_digest(tmp_path)
    module.write_text("a = 2\n")
    assert code_digest(tmp_path) != before
    (tmp_path / "base.yaml").write_text("seed: 1\n")
    run = tmp_path / "run.yaml"
    run.write_text("base: base.yaml\n")
    before = config_digest(run)
    (tmp_path / "base.yaml").write_text("# a comment\nseed: 1\n")
    assert config_digest(run) == before
    (tmp_path / "base.yaml").write_text("seed: 2\n")
    assert config_digest(run) != before
    assert "no such config file" in config_digest(tmp_path / "none.yaml")


def test_versions_of_what_is_not_installed() -> None:
    assert versions(["numpy", "no-such-package"])["no-such-package"] is None
    assert versions(["numpy"])["numpy"]


def test_this_machine_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("PYTHONPATH", str(repository()))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    config = str(repository() / "configs" / "runs" / "demo-cpu.yaml")
    assert main(["doctor", config, "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["usable"] == [socket.gethostname()]
    assert "folder" in verdict["checks"]
    assert not list(tmp_path.iterdir()), "the folder of the run is as before"


def test_all_bad_input_at_once(tmp_path: Path, capsys) -> None:
    hostfile = tmp_path / "hosts"
    hostfile.write_text("a slots=2\na slots=2\n")
    config = str(repository() / "configs" / "runs" / "demo-cpu.yaml")
    assert main(["doctor", config, "seed=-1", "--hostfile", str(hostfile), "--port", "0"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("gptdist doctor: error: ").split(";")[0] for line in lines] == [
        "--port: must be from 1 to 65535, got 0",
        f"{hostfile}:2: a is on line 1 already",
        f"{config}: seed: must be from 0 to 2^63 - 1, got -1",
    ]


def test_the_config_is_checked_for_the_hosts_of_the_file(tmp_path: Path, capsys) -> None:
    hostfile = tmp_path / "hosts"
    hostfile.write_text("a slots=2\nb slots=1\nc slots=2\n")
    config = str(repository() / "configs" / "runs" / "demo-cpu.yaml")
    assert main(["doctor", config, "--hostfile", str(hostfile)]) == 2
    slots, batch = capsys.readouterr().err.splitlines()
    assert f"{hostfile}:2: b: slots=1, but launch.ranks_per_node is 2" in slots
    assert "batch.global_batch_size (16) is no multiple of batch.micro_batch_size (8) x data-parallel size (6)" in batch


def test_programs_that_are_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    hostfile = tmp_path / "hosts"
    hostfile.write_text("a slots=2\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
    for words, program in ((["--hostfile", str(hostfile)], "ssh"), (["--slurm"], "scontrol")):
        assert main(["doctor", *words]) == 2
        assert f"error: {program}: is not installed on this machine" in capsys.readouterr().err


def test_a_host_that_prints_nothing_here() -> None:
    (answer,) = Here().ask("launch.preflight.none", ["a"], "", timeout_seconds=30)
    assert answer.trouble is not None
    assert "No module named launch.preflight.none" in answer.trouble
