"""Which hosts a file lists, and every line that is wrong with it."""

from pathlib import Path

import pytest

from gptdist.errors import ConfigError
from launch.hostfile import Host, read_hostfile


def _problems(tmp_path: Path, text: str, ranks_per_node: int = 2) -> list[str]:
    path = tmp_path / "hosts"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_hostfile(path, ranks_per_node=ranks_per_node)
    return [problem.removeprefix(str(tmp_path) + "/") for problem in refused.value.problems]


def test_deepspeeds_format(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text(
        "# the cluster\n\n  node1 slots=2\nnode-2.example.org\tslots=02  # by the door\n10.0.0.3   slots=2\n"
    )
    assert read_hostfile(path, ranks_per_node=2) == (
        Host("node1", 2, 3),
        Host("node-2.example.org", 2, 4),
        Host("10.0.0.3", 2, 5),
    )


def test_every_problem_of_every_line(tmp_path: Path) -> None:
    text = (
        "node1 slots=2\n-oProxyCommand=id slots=2\nnode2 slots=0\nnode3 slots=two gpus=8\nnode4\n"
        "node5 slots=2 slots=2\nNODE1 slots=2\n$(id) slots=2\nnode6 x slots=2\nnode7 2 slots=-1\nuser@node8 slots=2\n"
    )
    assert _problems(tmp_path, text) == [
        "hosts:2: '-oProxyCommand=id' is no host name; write letters, digits, '.', '-' and '_', as ssh takes it",
        "hosts:3: slots of node2 is '0'; write a whole number of at least 1",
        "hosts:4: slots of node3 is 'two'; write a whole number of at least 1",
        "hosts:4: unknown words 'gpus=8' behind node3; a line is 'host slots=N'",
        "hosts:5: node4 has 0 of 'slots=N'; write how many ranks it has room for, once",
        "hosts:6: node5 has 2 of 'slots=N'; write how many ranks it has room for, once",
        "hosts:7: NODE1 is on line 1 already; name each host once, with all of its slots",
        "hosts:8: '$(id)' is no host name; write letters, digits, '.', '-' and '_', as ssh takes it",
        "hosts:9: unknown words 'x' behind node6; a line is 'host slots=N'",
        "hosts:10: slots of node7 is '-1'; write a whole number of at least 1",
        "hosts:10: unknown words '2' behind node7; a line is 'host slots=N'",
        "hosts:11: 'user@node8' is no host name; write letters, digits, '.', '-' and '_', as ssh takes it",
    ]


def test_slots_that_are_not_the_runs(tmp_path: Path) -> None:
    assert _problems(tmp_path, "node1 slots=8\nnode2 slots=8\n") == [
        "hosts:1: node1 and 1 more: slots=8, but launch.ranks_per_node is 2 on every host; set "
        "launch.ranks_per_node=8, or leave hosts with another number out"
    ]
    assert _problems(tmp_path, "node1 slots=2\nnode2 slots=1\nnode3 slots=4\n") == [
        f"hosts:{line}: node{line}: slots={slots}, but launch.ranks_per_node is 2 on every host; write them alike on "
        "every line, or leave hosts with another number out"
        for line, slots in ((2, 1), (3, 4))
    ]


@pytest.mark.parametrize("text", ["", "\n# node1 slots=2\n\n"])
def test_no_host(tmp_path: Path, text: str) -> None:
    assert _problems(tmp_path, text) == ["hosts: names no host; write a line 'host slots=N' for each"]


def test_no_file(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"node1 slots=2 # f\xfcr alle\n")
    for name, reason in (
        ("none", "no such hostfile; check the path"),
        (".", r"cannot be read \(Is a directory\); name a file"),
        ("latin", "not UTF-8 at byte 17; save it as UTF-8"),
    ):
        with pytest.raises(ConfigError, match=reason):
            read_hostfile(tmp_path / name, ranks_per_node=2)
