"""The hosts that tests of several machines run on."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosts import LOGIN, NODE_LOCAL, Cluster, hosts, missing_programs

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"hosts need {missing_programs()}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with hosts(tmp_path_factory.mktemp("hosts"), count=2) as running:
        yield running


def _ssh(cluster: Cluster, host: str, *words: str) -> "subprocess.CompletedProcess[str]":
    return cluster.run(LOGIN, ["ssh", "-oBatchMode=yes", "-oConnectTimeout=2", host, *words])


def test_each_host_is_one_of_its_own(cluster: Cluster) -> None:
    for host in cluster.names:
        assert _ssh(cluster, host, "hostname; cat /etc/hostname").stdout.split() == [host, host]
        _ssh(cluster, host, f"echo {host} > /dev/shm/mine; echo {host} > {NODE_LOCAL}/mine")
    for host in cluster.names:
        assert _ssh(cluster, host, f"cat /dev/shm/mine {NODE_LOCAL}/mine").stdout.split() == [host, host]
        assert (cluster.local(host) / "mine").read_text() == f"{host}\n"
        assert _ssh(cluster, host, "cat /proc/1/comm").stdout == "sshd\n"
    assert socket.gethostname() not in cluster.all_names
    assert not Path("/dev/shm/mine").exists()


def test_host_keys_are_checked(cluster: Cluster) -> None:
    known = cluster.known_hosts.read_text()
    cluster.forge_key("node1")
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in _ssh(cluster, "node1", "true").stderr
    cluster.forget_key("node1")
    assert "Host key verification failed" in _ssh(cluster, "node1", "true").stderr
    assert _ssh(cluster, "node2", "true").returncode == 0
    cluster.known_hosts.write_text(known)
    assert _ssh(cluster, "node1", "true").returncode == 0


def test_a_cut_link_and_names_that_change(cluster: Cluster) -> None:
    cluster.cut("node2")
    assert _ssh(cluster, "node2", "true").returncode == 255
    cluster.heal("node2")
    cluster.resolve("node1", "node2", None)
    assert cluster.run("node1", ["getent", "ahostsv4", "node2"]).returncode == 2
    cluster.resolve("node1", "node2", cluster.address("node2"))
    assert cluster.run("node1", ["ssh", "node2", "hostname"]).stdout == "node2\n"


def test_commands_get_signals_and_environment(cluster: Cluster) -> None:
    code = "import os, signal, time; signal.signal(15, lambda *_: os._exit(7)); print(os.environ['A'], flush=True)"
    argv = [sys.executable, "-c", code + "; time.sleep(60)"]
    process = cluster.popen("node1", argv, env={"A": "b c"}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "b c\n"
    assert any("time.sleep(60)" in line for line in cluster.processes("node1").values())
    cluster.send_signal(process, signal.SIGTERM)
    assert process.wait(timeout=10) == 7
    assert not cluster.processes("node1")


def test_a_host_that_is_off_comes_back(cluster: Cluster) -> None:
    started = cluster.popen("node2", ["sleep", "60"])
    peer = cluster.popen("node1", ["timeout", "2", "bash", "-c", "cat < /dev/tcp/node2/22"], stdout=subprocess.PIPE)
    assert peer.stdout is not None
    assert peer.stdout.read(4) == b"SSH-"
    cluster.crash("node2")
    assert started.wait(timeout=10) != 0
    assert _ssh(cluster, "node2", "true").returncode == 255
    assert peer.wait(timeout=10) == 124, "a peer was told that the connection has ended"
    cluster.boot("node2")
    assert _ssh(cluster, "node2", "true").returncode == 0


def test_nothing_is_left_of_a_test_that_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with hosts(tmp_path, 1) as failing:
            started.append(failing.popen("node1", ["sleep", "62"]))
            raise ZeroDivisionError

    started: list[subprocess.Popen[bytes]] = []
    with pytest.raises(ZeroDivisionError):
        fail()
    assert started[0].wait(timeout=10) != 0
    assert not _processes_with(str(tmp_path))


def test_nothing_is_left_even_if_the_test_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib\nfrom tests.support.hosts import hosts\n"
        "with hosts(pathlib.Path(sys.argv[1]), 1) as cluster:\n"
        "    cluster.popen('node1', ['sleep', '61'])\n    print('up', flush=True)\n    sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.kill()
    deadline = time.monotonic() + 20
    while left := _processes_with(str(tmp_path)):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def _processes_with(word: str) -> list[str]:
    lines = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in line and int(entry.name) != os.getpid():
            lines.append(line)
    return lines
