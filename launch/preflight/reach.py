"""Ways to run the same module on every node, and what came back."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from launch.job import NodeCommand
from launch.ssh import PARALLEL, Answer, remote_line, run_on_hosts, ssh_argv, trouble

_PASSED_ON = ("PYTHONPATH", "TORCH_EXTENSIONS_DIR", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""Variables that decide which code runs, and over which network."""


@dataclass(frozen=True)
class Reply:
    """What one host answered."""

    host: str
    facts: dict[str, Any] | None
    """The JSON that the module printed; None: it did not."""

    trouble: str | None
    """Why not, in a line."""

    began: float
    """Seconds since 1970, by this machine's clock, before the host was asked."""

    seconds: float
    """Until it had answered."""


class Reach(Protocol):
    """A way to the nodes."""

    def ask(
        self, module: str, hosts: Sequence[str], request: str, *, timeout_seconds: float, parallel: int = PARALLEL
    ) -> list[Reply]:
        """Run ``python -m module NAME`` on each host with ``request`` as its input; return the replies in order."""
        ...


class OverSsh:
    """Other hosts, by ssh."""

    def __init__(self, folder: Path) -> None:
        """Run in ``folder`` there, which they share with this machine."""
        self._folder = folder.absolute()

    def ask(
        self, module: str, hosts: Sequence[str], request: str, *, timeout_seconds: float, parallel: int = PARALLEL
    ) -> list[Reply]:
        """Run the module on each host; so many at a time."""
        commands = {host: module_command(module, host) for host in hosts}

        def argv(host: str) -> list[str]:
            return ssh_argv(host, remote_line(commands[host], self._folder))

        answers = run_on_hosts(hosts, argv, stdin=request, timeout_seconds=timeout_seconds, parallel=parallel)
        return [reply(answer, commands[answer.host], self._folder) for answer in answers]


class Here:
    """This machine, for a job that runs on no other."""

    def ask(
        self, module: str, hosts: Sequence[str], request: str, *, timeout_seconds: float, parallel: int = PARALLEL
    ) -> list[Reply]:
        """Run the module as a process of its own, as elsewhere."""
        commands = {host: module_command(module, host) for host in hosts}
        answers = run_on_hosts(
            hosts,
            lambda host: commands[host].argv,
            stdin=request,
            timeout_seconds=timeout_seconds,
            parallel=parallel,
        )
        return [reply(answer, commands[answer.host], Path.cwd()) for answer in answers]


def module_command(module: str, host: str) -> NodeCommand:
    """Return the command that runs ``module`` on ``host`` with this machine's Python and code."""
    environment = tuple((name, os.environ[name]) for name in _PASSED_ON if name in os.environ)
    return NodeCommand((sys.executable, "-m", module, host), environment)


def reply(answer: Answer, command: NodeCommand, folder: Path) -> Reply:
    """Return what ``answer`` says; shells may print a greeting before it."""
    line = trouble(answer, command, folder)
    facts = None if line else next(filter(None, map(_tree, reversed(answer.output.splitlines()))), None)
    if line is None and facts is None:
        line = f"{answer.host}: {' '.join(command.argv[1:3])} printed no answer; does the login shell end early there?"
    return Reply(answer.host, facts, line, answer.began, answer.seconds)


def _tree(line: str) -> dict[str, Any] | None:
    try:
        tree = json.loads(line)
    except ValueError:
        return None
    return tree if isinstance(tree, dict) else None
