"""Start the ranks of a run with Open MPI's ``mpirun``: one process a rank, on hosts that it knows how to reach."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

from gptdist.device.parent_death import die_with_parent
from gptdist.errors import EXIT_DONE, EXIT_FAILED, EXIT_REQUEUE, EXIT_STOPPED, EXIT_USER_ERROR, LaunchError
from launch.job import Job, NodeCommand

KILL_SECONDS = 5
"""From mpirun's SIGTERM to its SIGKILL; it always waits so long, twice, once a rank has failed."""

OURS = (EXIT_DONE, EXIT_FAILED, EXIT_USER_ERROR, EXIT_STOPPED, EXIT_REQUEUE)
"""Exit statuses that are a rank's own; others are mpirun's, or 128 and the number of the signal that ended one."""


@dataclass(frozen=True)
class Hosts:
    """Where mpirun starts ranks."""

    nodes: int = 1
    hostfile: Path | None = None
    """Default: the hosts that the batch system gives, else this one."""

    head: str | None = None
    """The host of rank 0, by which the others reach it; not needed for one."""

    def problems(self) -> list[str]:
        """Return why ranks cannot be started there."""
        bad = []
        if self.nodes > 1 and self.head is None:
            bad.append(f"--head: the ranks of {self.nodes} hosts meet on that of rank 0; name it")
        if self.hostfile is not None and not self.hostfile.is_file():
            bad.append(f"--hostfile: {self.hostfile}: no such file")
        return bad


def mpi_command(job: Job, *, hosts: Hosts, cores: int, as_root: bool) -> NodeCommand:
    """Return the command that trains ``job`` under mpirun.

    Args:
        job: what the ranks run.
        hosts: where to.
        cores: processor cores of a host, to share out between its ranks.
        as_root: whether the user is root, whom mpirun refuses without being told.
    """
    config = job.config
    ranks = config.launch.ranks_per_node
    threads = config.launch.threads_per_rank or max(1, cores // ranks)
    settings = {"OMP_NUM_THREADS": str(threads)}
    if config.training.deterministic:
        settings["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without it torch refuses cuBLAS in this mode
    if hosts.nodes > 1 and hosts.head is not None:
        settings["MASTER_ADDR"] = hosts.head
    argv = [
        "mpirun",
        *(["--allow-run-as-root"] if as_root else []),
        *(["--hostfile", str(hosts.hostfile)] if hosts.hostfile else []),
        "-np",
        str(ranks * hosts.nodes),
        # Its slots are cores unless a hostfile or the batch system says otherwise; ours are what the config says.
        "--map-by",
        f"ppr:{ranks}:node",
        "--oversubscribe",
        # By default a rank, with all its threads, is bound to one core.
        "--bind-to",
        "none",
        "--mca",
        "odls_base_sigkill_timeout",
        str(KILL_SECONDS),
    ]
    for name, value in settings.items():
        argv += ["-x", f"{name}={value}"]
    return NodeCommand((*argv, sys.executable, "-m", job.module, str(job.config_path), *job.words), ())


def check_mpirun() -> None:
    """Refuse where there is no Open MPI.

    Raises:
        LaunchError: says what is there instead.
    """
    if shutil.which("mpirun") is None:
        raise LaunchError(["mpirun: is not installed here; load the module of Open MPI, or use another back end"])
    version = subprocess.run(["mpirun", "--version"], capture_output=True, text=True, check=False).stdout
    if "Open MPI" not in version:
        raise LaunchError(
            [
                f"mpirun: must be Open MPI's, got '{(version.strip().splitlines() or ['no version'])[0]}'; start "
                f"'python -m gptdist.train CONFIG' with it by hand: the ranks understand its variables"
            ]
        )


def run_mpi(command: NodeCommand) -> int:
    """Run ``command`` to its end and return the exit status of the first rank that failed, or 0.

    mpirun kills ranks on SIGTERM and on Ctrl-C, and passes SIGUSR1 on: that is what it gets for each of them, so that
    the ranks can save. If this process is killed, so is all that it started.
    """
    process = subprocess.Popen(
        command.argv,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **dict(command.environment)},
        preexec_fn=partial(_apart, os.getpid()),  # noqa: PLW1509 - no other thread is there to hold a lock
    )
    by_person = False

    def ask_to_stop(number: int, _: FrameType | None) -> None:
        nonlocal by_person
        by_person = by_person or number == signal.SIGINT
        if process.poll() is None:
            process.send_signal(signal.SIGUSR1)

    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.signal(number, ask_to_stop) for number in signals}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if status == EXIT_REQUEUE and by_person:
        return EXIT_STOPPED
    return status if status in OURS else EXIT_FAILED


def _apart(parent: int) -> None:
    """Leave the terminal's group, whose Ctrl-C would reach mpirun, and die with the parent."""
    os.setpgid(0, 0)
    die_with_parent(parent)
