"""What a launch runs: commands and environment of every node, decided before anything starts."""

import hashlib
import os
import re
import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gptdist.config.run import RunConfig
from gptdist.telemetry.heartbeat import HEARTBEAT_DIR
from gptdist.telemetry.rank_log import LOG_DIR
from gptdist.train.stop_signal import STOP_AFTER

TORCHRUN_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
"""torchrun passes these on to the ranks; without SIGUSR1 in the list it would die of it."""

LOGS_NAME = "logs"
_LAUNCH_FOLDER = re.compile(r"launch_(\d{4,})")


@dataclass(frozen=True)
class NodeCommand:
    """One process to start on one node."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    """Variables set for it, on top of the inherited ones."""

    def shell_line(self) -> str:
        """Return the command as a line to paste into a shell; it does exactly what the launch does."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.environment]
        return " ".join([*settings, *(shlex.quote(word) for word in self.argv)])


@dataclass(frozen=True)
class Job:
    """What every rank runs."""

    config: RunConfig
    """Resolved."""

    config_path: Path
    """File it was read from; the ranks read it again."""

    words: tuple[str, ...] = ()
    """What each rank gets behind it, such as ``key=value`` overrides."""

    module: str = "gptdist.train"
    python: str = sys.executable
    """The nodes' interpreter; in a container it is another one."""


@dataclass(frozen=True)
class Rendezvous:
    """Where the nodes of a job meet."""

    nodes: int
    head: str
    """Name or address of node 0, as the others reach it."""

    port: int
    node_rank: int | None = None
    """Of the node; none where the variable PET_NODE_RANK says it, which torchrun reads."""


def torchrun_command(
    job: Job,
    log_folder: Path,
    *,
    rendezvous: Rendezvous | None = None,
    threads: int | None = None,
    stop_after_seconds: float | None = None,
) -> NodeCommand:
    """Return the command that starts the ranks of one node.

    Args:
        job: what they run.
        log_folder: of this launch.
        rendezvous: of several nodes; default: this one alone.
        threads: CPU threads of each rank; default: as the config says, or the node's agent.
        stop_after_seconds: when the ranks stop by themselves; default: by the config's time limit.
    """
    limits = job.config.launch
    if rendezvous is None:
        place = ["--standalone"]
    else:
        place = [f"--nnodes={rendezvous.nodes}"]
        place += [] if rendezvous.node_rank is None else [f"--node-rank={rendezvous.node_rank}"]
        place += [f"--master-addr={rendezvous.head}", f"--master-port={rendezvous.port}"]
    argv = (
        job.python,
        "-m",
        "launch.torchrun",
        *place,
        f"--nproc-per-node={limits.ranks_per_node}",
        "--max-restarts=0",
        f"--signals-to-handle={TORCHRUN_SIGNALS}",
        f"--shutdown-timeout={limits.shutdown_seconds:g}",
        "-m",
        job.module,
        str(job.config_path),
        *job.words,
    )
    environment = {
        # With gloo, ranks of a restarted job would otherwise read the addresses of the dead ones.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        LOG_DIR: str(log_folder),
        HEARTBEAT_DIR: str(heartbeat_folder(log_folder)),
    }
    threads = limits.threads_per_rank or threads
    if threads is not None:
        environment = {"OMP_NUM_THREADS": str(threads), **environment}
    if stop_after_seconds is None:
        stop_after_seconds = limits.stop_after_seconds
    if stop_after_seconds is not None:
        environment[STOP_AFTER] = f"{stop_after_seconds:.0f}"
    if job.config.training.deterministic:
        environment["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without it torch refuses cuBLAS in this mode
    return NodeCommand(argv, tuple(environment.items()))


def agent_command(job: Job, ranks: NodeCommand, *options: str) -> NodeCommand:
    """Return the command that looks after the ranks of ``ranks`` on a node that is not this process's own.

    Args:
        job: what they run.
        ranks: as ``torchrun_command`` gives it.
        options: more of ``python -m launch.agent``.
    """
    limits = job.config.launch
    argv = (
        job.python,
        "-m",
        "launch.agent",
        f"--stall-seconds={limits.stall_seconds:g}",
        f"--startup-seconds={limits.startup_seconds:g}",
        f"--shutdown-seconds={limits.shutdown_seconds:g}",
        f"--ranks={limits.ranks_per_node}",
        *options,
        "--",
        *ranks.argv,
    )
    return NodeCommand(argv, ranks.environment)


def heartbeat_folder(log_folder: Path) -> Path:
    """Return where the ranks of a launch have their heartbeats: on each node's own disk, the same path on all.

    The name follows from the launch, so that it can be shown before anything runs.
    """
    digest = hashlib.sha256(str(log_folder.absolute()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"gptdist-{os.getuid()}-{digest}"


def next_log_folder(run: Path) -> Path:
    """Return the folder that the next launch of the run in ``run`` keeps its logs in; makes nothing."""
    logs = (run / LOGS_NAME).absolute()
    known = [_LAUNCH_FOLDER.fullmatch(path.name) for path in logs.iterdir()] if logs.is_dir() else []
    return logs / f"launch_{1 + max((int(match[1]) for match in known if match), default=0):04d}"
