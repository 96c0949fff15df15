"""What is said of hosts that cannot be reached, by the real ssh and sshd."""

import json
import sys
from collections.abc import Iterator

import pytest

from tests.support.hosts import LOGIN, Cluster, hosts, missing_programs
from tests.support.ranks import repository

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"hosts need {missing_programs()}")

_ASK = """
import json, sys
from pathlib import Path
from launch.job import NodeCommand
from launch.ssh import remote_line, run_on_hosts, ssh_argv, trouble
hosts, argv, folder, timeout = json.loads(sys.argv[1])
command = NodeCommand(tuple(argv), ())
line = remote_line(command, Path(folder))
answers = run_on_hosts(hosts, lambda host: ssh_argv(host, line), stdin="said", timeout_seconds=timeout)
print(json.dumps([trouble(answer, command, Path(folder)) or answer.output for answer in answers]))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with hosts(tmp_path_factory.mktemp("hosts"), count=4) as running:
        yield running


def _ask(cluster: Cluster, names: list[str], *argv: str, folder: str = "/", timeout: float = 30) -> list[str]:
    request = json.dumps([names, argv, folder, timeout])
    done = cluster.run(LOGIN, [sys.executable, "-c", _ASK, request], cwd=repository())
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_each_host_that_cannot_be_reached_says_why(cluster: Cluster) -> None:
    cluster.cut("node2")
    cluster.forge_key("node3")
    cluster.forget_key("node4")
    said = _ask(cluster, ["node1", "node2", "node3", "node4", "node9", LOGIN], "sh", "-c", 'echo "$(hostname) $(cat)"')
    assert said[0] == "node1 said\n"
    assert said[1].startswith("node2: does not answer (ssh: connect to host node2 port 22: ")
    assert said[2].startswith("node3: shows another host key than the known one (/root/.ssh/known_hosts:")
    assert said[3].startswith("node4: its host key is not known")
    assert said[4] == "node9: no such name here; mend the hostfile, /etc/hosts or DNS"
    assert said[5] == "login said\n"


def test_commands_that_cannot_be_run_there(cluster: Cluster) -> None:
    assert _ask(cluster, ["node1"], "/opt/none/python", "-m", "x")[0].startswith(
        "node1: has no /opt/none/python, or cannot run it ("
    )
    assert _ask(cluster, ["node1"], "true", folder="/opt/none")[0].startswith("node1: has no folder /opt/none (")
    assert (
        "No module named launch.none'; install gptdist there"
        in _ask(cluster, ["node1"], sys.executable, "-m", "launch.none")[0]
    )
    said = _ask(cluster, ["node1"], "sh", "-c", "echo why >&2; exit 3")
    assert said == ["node1: sh -c 'echo why >&2; exit 3' ended with status 3 (why)"]
    assert _ask(cluster, ["node1"], "sleep", "30", timeout=1.5)[0].startswith("node1: no answer after 1.5 s")


def test_refused_without_a_key(cluster: Cluster) -> None:
    keys = cluster.folder / "ssh" / "authorized_keys"
    before = keys.read_text()
    keys.write_text("")
    said = _ask(cluster, ["node1"], "true")
    keys.write_text(before)
    assert said == [
        "node1: ssh is refused (root@node1: Permission denied (publickey).); it needs a key without a "
        "password: ssh-copy-id node1"
    ]
