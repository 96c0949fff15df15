"""The lines that other hosts' shells get."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from launch.job import NodeCommand
from launch.ssh import remote_line, run_on_hosts, ssh_argv, trouble

NASTY = "a b'\"$(touch made)`touch made`;touch made\n*\\"


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_nothing_in_a_line_is_expanded(tmp_path: Path, shell: str) -> None:
    folder = tmp_path / "$(touch made) x"
    folder.mkdir()
    code = "import os, sys; print([os.getcwd(), os.environ['A'], sys.argv[1:]])"
    line = remote_line(NodeCommand((sys.executable, "-c", code, NASTY, ""), (("A", NASTY),)), folder)
    done = subprocess.run([shell, "-c", line], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == f"{[str(folder), NASTY, [NASTY, '']]}\n"
    assert not list(tmp_path.rglob("made"))


def test_a_command_that_takes_too_long_is_ended() -> None:
    (answer,) = run_on_hosts(["a"], lambda _: ["sleep", "300"], stdin="", timeout_seconds=0.2)
    assert (answer.status, answer.errors) == (None, "no answer after 0.2 s")
    command = NodeCommand(("sleep", "300"), ())
    assert trouble(answer, command, Path("/")) == "a: no answer after 0.2 s; is it up, and its network?"
    silent = replace(answer, status=255, errors="")
    assert "no sign of life for 15 s" in str(trouble(silent, command, Path("/")))


def test_host_keys_are_checked_and_nothing_is_asked() -> None:
    argv = ssh_argv("node1", "true")
    assert argv[-3:] == ["--", "node1", "true"]
    assert {"BatchMode=yes", "ConnectTimeout=5", "ServerAliveInterval=5", "ServerAliveCountMax=3"} <= set(argv)
    assert not any("StrictHostKeyChecking" in word or "KnownHosts" in word for word in argv)
