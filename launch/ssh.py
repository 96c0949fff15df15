"""Commands on other hosts by ssh, and what it says when they cannot be run.

ssh asks nothing (no password, no question) and checks host keys as it does by hand; a dead host or link ends it after
stated seconds.
"""

import re
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from launch.job import NodeCommand

CONNECT_SECONDS = 5
ALIVE_SECONDS, ALIVE_COUNT = 5, 3
"""ssh asks an idle host for a sign of life this often, and ends after so many without."""

EXIT_SSH = 255
"""ssh's own failure; anything else is the command's status."""

PARALLEL = 64
"""Connections that are open at a time."""


def ssh_argv(host: str, line: str) -> list[str]:
    """Return the command that runs ``line`` in the login shell of ``host``."""
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": CONNECT_SECONDS,
        "ServerAliveInterval": ALIVE_SECONDS,
        "ServerAliveCountMax": ALIVE_COUNT,
        "ControlMaster": "no",  # one that stays behind would hold our end of its output open
        "LogLevel": "ERROR",  # no banner, nothing about known hosts: what it says is a reason
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return ["ssh", "-T", *words, "--", host, line]


def remote_line(command: NodeCommand, folder: Path) -> str:
    """Return ``command`` as a line for any login shell, to be run in ``folder``; nothing in it is expanded."""
    words = ["env", *(f"{name}={value}" for name, value in command.environment), *command.argv]
    return f"cd {shlex.quote(str(folder))} && exec {shlex.join(words)}"


_PASSED_ON = ("GLOO_", "LD_LIBRARY_PATH", "MKL_", "NCCL_", "OMP_", "PYTHON", "TORCH_", "UCX_")


def passed_on(environment: Mapping[str, str], more: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    """Return the variables that ranks elsewhere get as they are here: of code and network, and ``more`` by name.

    Keys and tokens are not among them: a command line can be read by every user of a host.
    """
    return tuple(
        (name, value) for name, value in sorted(environment.items()) if name.startswith(_PASSED_ON) or name in more
    )


@dataclass(frozen=True)
class Answer:
    """What became of a command on a host."""

    host: str
    status: int | None
    """Exit status, ssh's or the command's; None: it was ended for it took too long."""

    output: str
    errors: str
    began: float
    """Seconds since 1970 before ssh was started; it had ended ``seconds`` later."""

    seconds: float


def run_on_hosts(
    hosts: Sequence[str],
    argv_of: Callable[[str], Sequence[str]],
    *,
    stdin: str,
    timeout_seconds: float,
    parallel: int = PARALLEL,
) -> list[Answer]:
    """Run a command for each host, ``parallel`` at a time, and return what they answered, in the order of ``hosts``.

    Args:
        hosts: names.
        argv_of: gives the command for a host, such as ``ssh_argv``.
        stdin: what each reads.
        timeout_seconds: after which a command is ended.
        parallel: commands that run at a time.
    """

    def run(host: str) -> Answer:
        began, start = time.time(), time.monotonic()
        try:
            done = subprocess.run(
                argv_of(host),
                input=stdin,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Answer(host, None, "", f"no answer after {timeout_seconds:g} s", began, time.monotonic() - start)
        return Answer(host, done.returncode, done.stdout, done.stderr, began, time.monotonic() - start)

    with ThreadPoolExecutor(min(parallel, max(1, len(hosts)))) as pool:
        return list(pool.map(run, hosts))


_REASONS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "shows another host key than the known one{place}; if it was set up anew, remove the old key (ssh-keygen -R "
        "{host}) and accept the new one, else do not trust it",
    ),
    ("Host key verification failed", "its host key is not known; log in by hand once (ssh {host}) and compare the key"),
    ("Could not resolve hostname", "no such name here; mend the hostfile, /etc/hosts or DNS"),
    ("Permission denied", "ssh is refused ({said}); it needs a key without a password: ssh-copy-id {host}"),
    ("Connection refused", "has no sshd on this port ({said}); start it"),
    ("timed out", "does not answer ({said}); is it up, and its network?"),
    ("No route to host", "does not answer ({said}); is it up, and its network?"),
    ("not responding", "answers no more ({said}); is it up, and its network?"),
)
"""What ssh says, and what it means; the first that fits counts."""


def trouble(answer: Answer, command: NodeCommand, folder: Path) -> str | None:
    """Return why ``command`` was not done on a host, in a line that begins with the host's name; None: it was."""
    if answer.status == 0:
        return None
    lines = [line.strip() for line in answer.errors.splitlines() if line.strip()]
    said = lines[-1] if lines else "it says nothing"
    if answer.status is None:
        reason = f"{said}; is it up, and its network?"
    elif answer.status == EXIT_SSH:
        reason = _reason(answer, said)
    elif answer.status in (126, 127):
        reason = f"has no {command.argv[0]}, or cannot run it ({said}); install the same Python there"
    elif "cd:" in answer.errors and str(folder) in answer.errors:
        reason = f"has no folder {folder} ({said}); launch from a folder that all hosts share"
    elif "No module named" in answer.errors:
        reason = f"{command.argv[0]} says '{said}'; install gptdist there, or share the environment"
    else:
        reason = f"{shlex.join(command.argv[:3])} ended with status {answer.status} ({said})"
    return f"{answer.host}: {reason}"


def _reason(answer: Answer, said: str) -> str:
    if not answer.errors.strip():
        dead = ALIVE_SECONDS * ALIVE_COUNT
        return f"the connection has ended, or had no sign of life for {dead} s; is it up, and its network?"
    for phrase, meaning in _REASONS:
        if phrase in answer.errors:
            place = re.search(r"Offending .* key in (\S+)", answer.errors)
            return meaning.format(host=answer.host, said=said, place=f" ({place[1]})" if place else "")
    return f"ssh failed ({said})"
