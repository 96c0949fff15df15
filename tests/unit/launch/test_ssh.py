"""The lines that other hosts' shells get."""

import subprocess
import sys
from pathlib import Path

import pytest

from launch.job import NodeCommand
from launch.ssh import remote_line, ssh_argv

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


def test_host_keys_are_checked_and_nothing_is_asked() -> None:
    argv = ssh_argv("node1", "true")
    assert argv[-3:] == ["--", "node1", "true"]
    assert {"BatchMode=yes", "ConnectTimeout=5", "ServerAliveInterval=5", "ServerAliveCountMax=3"} <= set(argv)
    assert not any("StrictHostKeyChecking" in word or "KnownHosts" in word for word in argv)
