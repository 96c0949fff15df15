"""``gptdist doctor`` over ssh, on hosts that have what it looks for."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import LOGIN, NODE_LOCAL, Cluster, hosts, missing_programs
from tests.support.ranks import repository

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"hosts need {missing_programs()}")

CONFIG = repository() / "configs" / "runs" / "demo-cpu.yaml"
PORT = 29517


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with hosts(tmp_path_factory.mktemp("hosts"), count=8) as running:
        yield running


def _doctor(cluster: Cluster, names: list[str], *words: str, config: Path = CONFIG) -> tuple[int, dict[str, Any]]:
    """Return the exit status and the verdict of a doctor that looks from the login host."""
    hostfile = cluster.folder / "hostfile"
    hostfile.write_text("".join(f"{name} slots=2\n" for name in names))
    argv = [sys.executable, "-m", "gptdist.cli.main", "doctor", str(config), f"run_dir={_run(cluster)}"]
    argv += ["batch.micro_batch_size=1", f"batch.global_batch_size={2 * len(names)}"]
    argv += ["--hostfile", str(hostfile), "--port", str(PORT), "--json", *words]
    done = cluster.run(LOGIN, argv, env=_environment(), cwd=repository(), timeout=200)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


def _run(cluster: Cluster) -> Path:
    return cluster.folder / "shared" / "run"


def _environment() -> dict[str, str]:
    return {"PYTHONPATH": str(repository()), "TORCH_EXTENSIONS_DIR": str(NODE_LOCAL / "ext")}


def _mount_over(cluster: Cluster, host: str, path: Path, new_text: str) -> None:
    """Let a file of all hosts be another on one of them."""
    other = cluster.host_folder(host) / path.name
    other.write_text(new_text)
    assert cluster.run(host, ["mount", "--bind", str(other), str(path)]).returncode == 0


def _by_host(verdict: dict[str, Any]) -> dict[tuple[str | None, str], str]:
    return {(one["host"], one["check"]): one["text"] for one in verdict["problems"]}


def test_hosts_that_are_well(cluster: Cluster) -> None:
    status, verdict = _doctor(cluster, cluster.names[:2])
    assert (status, verdict["problems"], verdict["usable"]) == (0, [], ["node1", "node2"])
    assert not (cluster.folder / "shared").exists(), "it has left something behind"


def test_a_slow_link_is_the_fault_of_one(cluster: Cluster) -> None:
    cluster.limit("node2", mbit_per_second=50)
    status, verdict = _doctor(cluster, cluster.names[:3], "--links")
    cluster.unlimit("node2")
    assert status == 1
    assert verdict["excluded"] == {"node2": ["link"]}, verdict
    speeds = {tuple(link["hosts"]): link["gbit_per_second"] for link in verdict["links"]}
    assert len(speeds) == 3
    assert all(0.02 < speed < 0.1 for pair, speed in speeds.items() if "node2" in pair), speeds


def test_a_host_measures_no_longer_than_it_is_asked_to(cluster: Cluster) -> None:
    plan = json.dumps({"meetings": [["node1", "node2"]], "port": PORT, "device": "cpu"})
    line = f"cd {repository()} && exec env PYTHONPATH=. {sys.executable} -m launch.preflight.link node1"
    ssh = cluster.popen(LOGIN, ["ssh", "node1", line], stdin=subprocess.PIPE, text=True)
    assert ssh.stdin is not None
    ssh.stdin.write(plan)
    ssh.stdin.close()
    _wait_until_it_listens(cluster)
    assert any("launch.preflight.link" in line for line in cluster.processes("node1").values())
    cluster.send_signal(ssh, signal.SIGKILL)
    ssh.wait(timeout=10)
    deadline = time.monotonic() + 20
    while left := cluster.processes("node1"):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_every_fault_is_found_where_it_is(cluster: Cluster) -> None:
    """One look at eight hosts: each but the last has another fault, provoked for real. They keep them."""
    run = _run(cluster)
    run.mkdir(parents=True)
    server = [sys.executable, "-m", "http.server", str(PORT), "--bind", "127.0.0.1"]
    log = (cluster.folder / "server.log").open("wb")
    started = [cluster.popen("node1", server, stdout=log, stderr=log)]
    cluster.resolve("node2", "node2", "127.0.1.1")
    cluster.resolve("node2", "node7", None)
    assert cluster.run("node3", ["mount", "--bind", str(NODE_LOCAL), str(run)]).returncode == 0
    code = repository() / "launch" / "ssh.py"
    _mount_over(cluster, "node4", code, code.read_text() + "\n# changed\n")
    assert cluster.run("node4", ["mount", "--bind", str(run), str(run)]).returncode == 0
    assert cluster.run("node4", ["mount", "-o", "remount,ro,bind", str(run)]).returncode == 0
    metadata = Path(str(distribution("numpy").locate_file("."))) / f"numpy-{distribution('numpy').version}.dist-info"
    text = (metadata / "METADATA").read_text()
    _mount_over(cluster, "node5", metadata / "METADATA", text.replace("\nVersion: ", "\nVersion: 0.", 1))
    _mount_over(cluster, "node5", CONFIG, CONFIG.read_text() + "\nseed: 7\n")
    cluster.cut("node6")
    rank = {"GPTDIST_LOG_DIR": str(run / "logs" / "launch_0001")}
    started.append(cluster.popen("node7", ["sleep", "600"], env=rank))
    lock = cluster.local("node7") / "ext" / "py311_cpu" / "cpu_adam" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    os.utime(lock, (time.time() - 600, time.time() - 600))
    _wait_until_it_listens(cluster)

    status, verdict = _doctor(cluster, cluster.names)
    found = _by_host(verdict)
    assert status == 1
    assert verdict["usable"] == ["node8"], verdict
    assert verdict["excluded"] == {
        "node1": ["port"],
        "node2": ["names"],
        "node3": ["folder"],
        "node4": ["code", "folder"],
        "node5": ["config", "versions"],
        "node6": ["reach"],
        "node7": ["locks", "ranks"],
    }
    assert found["node1", "port"].startswith(f"{PORT} is taken (Address already in use)")
    names = [one["text"] for one in verdict["problems"] if one["host"] == "node2"]
    assert names[0].startswith("its own name is 127.0.1.1")
    assert names[1].startswith("does not know node7;")
    assert found["node3", "folder"].startswith(f"{run} is another folder there (")
    assert "Read-only file system" in found["node4", "folder"]
    assert "on 6 of 7 hosts" in found["node4", "code"]
    assert found["node5", "versions"].startswith(f"numpy is 0.{distribution('numpy').version}, but ")
    assert found["node6", "reach"].startswith("does not answer (ssh: connect to host node6 port 22")
    assert "(sleep 600 …)" in found["node7", "ranks"]
    assert found["node7", "locks"].startswith(f"{NODE_LOCAL}/ext/py311_cpu/cpu_adam/lock: stale for 10 min")
    assert not list(run.iterdir())
    for process in started:
        cluster.send_signal(process, signal.SIGKILL)
        process.wait(timeout=10)
    log.close()


def _wait_until_it_listens(cluster: Cluster) -> None:
    deadline = time.monotonic() + 20
    while cluster.run("node1", ["bash", "-c", f"echo > /dev/tcp/127.0.0.1/{PORT}"]).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_table_for_people(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "gptdist.cli.main", "doctor", str(CONFIG), f"run_dir={tmp_path}"]
    done = subprocess.run(
        argv, env={**os.environ, **_environment()}, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    assert lines[0].split()[:5] == ["host", "reach", "code", "config", "versions"]
    assert lines[-1].startswith("PASS  1 host: reach, code, config, versions, port, clock, folder")
    assert done.returncode == 0
