"""Ways to run the same module on every node, and what came back."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gptdist.errors import LaunchError
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
        """Run in ``folder`` there, which they share with this machine.

        Raises:
            LaunchError: there is no ssh here.
        """
        _check_installed("ssh", "openssh-client")
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


class UnderSrun:
    """The nodes of the Slurm job that this process is in, by one ``srun`` for all of them."""

    def __init__(self, options: Sequence[str] = (), before: Sequence[str] = ()) -> None:
        """Give ``srun`` more ``options``; ``before`` stands before Python's own command, such as a container's.

        Raises:
            LaunchError: there is no srun here.
        """
        _check_installed("srun", "slurm-client")
        self._options, self._before = options, before

    def ask(
        self, module: str, hosts: Sequence[str], request: str, *, timeout_seconds: float, parallel: int = PARALLEL
    ) -> list[Reply]:
        """Run the module on all nodes at once; each says which one it is."""
        command = module_command(module)
        srun = ["srun", f"--nodes={len(hosts)}", f"--ntasks={len(hosts)}", "--ntasks-per-node=1"]
        srun += [f"--nodelist={','.join(hosts)}", "--overlap", "--kill-on-bad-exit=0", "--input=all"]
        srun += [*self._options, *self._before, *command.argv]
        (answer,) = run_on_hosts(["srun"], lambda _: srun, stdin=request, timeout_seconds=timeout_seconds)
        facts = {tree["name"]: tree for tree in map(_tree, answer.output.splitlines()) if tree is not None}
        said = [line.strip() for line in answer.errors.splitlines() if line.strip()] or ["it says nothing"]
        troubles = {host: _srun_trouble(host, said) for host in hosts if host not in facts}
        return [Reply(host, facts.get(host), troubles.get(host), answer.began, answer.seconds) for host in hosts]


def _srun_trouble(host: str, said: Sequence[str]) -> str:
    about = [line for line in said if host in line.replace(",", " ").replace(":", " ").split()]
    return f"{host}: srun has no answer of it ({(about or said)[-1]}); see: scontrol show node {host}"


def allocated_hosts() -> tuple[str, ...]:
    """Return the nodes of the Slurm job that this process is in.

    Raises:
        LaunchError: it is in none, or Slurm does not know its nodes.
    """
    listed = os.environ.get("SLURM_JOB_NODELIST")
    if listed is None:
        raise LaunchError(["--slurm: SLURM_JOB_NODELIST is not set; use it within a job, such as one of salloc"])
    _check_installed("scontrol", "slurm-client")
    shown = subprocess.run(["scontrol", "show", "hostnames", listed], capture_output=True, text=True, check=False)
    if shown.returncode or not shown.stdout.split():
        said = " ".join(shown.stderr.split()) or "nothing"
        raise LaunchError([f"SLURM_JOB_NODELIST: scontrol makes no hosts of '{listed}' ({said}); use it within a job"])
    return tuple(shown.stdout.split())


def _check_installed(program: str, package: str) -> None:
    if shutil.which(program) is None:
        raise LaunchError([f"{program}: is not installed on this machine; install it (Debian: {package})"])


def module_command(module: str, *arguments: str) -> NodeCommand:
    """Return the command that runs ``module`` on another host with this machine's Python and code."""
    environment = tuple((name, os.environ[name]) for name in _PASSED_ON if name in os.environ)
    return NodeCommand((sys.executable, "-m", module, *arguments), environment)


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
