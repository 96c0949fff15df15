"""Start the ranks of a run on this machine, under torchrun."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from gptdist.config.run import RunConfig
from gptdist.device.parent_death import die_with_parent
from launch.job import TORCHRUN_SIGNALS, NodeCommand

SHUTDOWN_SECONDS = 60
"""How long torchrun lets ranks save after a signal before it kills them."""


def local_command(
    config: RunConfig, config_path: Path, words: Sequence[str], *, cores: int, module: str = "gptdist.train"
) -> NodeCommand:
    """Return the command that trains ``config`` here.

    Args:
        config: the resolved config.
        config_path: file it was read from; the ranks read it again.
        words: what each rank gets behind it, such as ``key=value`` overrides.
        cores: processor cores to share out between the ranks.
        module: what each rank runs.
    """
    ranks = config.launch.ranks_per_node
    threads = config.launch.threads_per_rank or max(1, cores // ranks)
    argv = (
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={ranks}",
        "--max-restarts=0",
        f"--signals-to-handle={TORCHRUN_SIGNALS}",
        f"--shutdown-timeout={SHUTDOWN_SECONDS}",
        "-m",
        module,
        str(config_path),
        *words,
    )
    environment = {
        "OMP_NUM_THREADS": str(threads),
        # With gloo, ranks of a restarted job would otherwise read the addresses of the dead ones.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    if config.training.deterministic:
        environment["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without it torch refuses cuBLAS in this mode
    return NodeCommand(argv, tuple(environment.items()))


def run_local(command: NodeCommand) -> int:
    """Run ``command`` to its end and return its exit status: 0 done, 2 the input has to be mended, else failed.

    Signals that ask for a stop are passed on, so that the ranks can save. If this process is killed, so is all that it
    started.
    """
    process = subprocess.Popen(
        command.argv,
        env={**os.environ, **dict(command.environment)},
        preexec_fn=partial(die_with_parent, os.getpid()),  # noqa: PLW1509 - no other thread is there to hold a lock
    )

    def forward(number: int, _: FrameType | None) -> None:
        if process.poll() is None:
            process.send_signal(number)

    # On Ctrl-C the terminal signals the whole group: torchrun has it already.
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    for number in (signal.SIGTERM, signal.SIGUSR1):
        before[number] = signal.signal(number, forward)
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
