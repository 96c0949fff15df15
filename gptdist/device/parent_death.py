"""Processes that do not outlive the one that started them, even if that is killed without a word.

Otherwise the ranks of a killed launcher would train on, and the same command would find their run locked. Only Linux
can do this; elsewhere nothing happens.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""

INIT_PID = 1
"""The process that orphans are given to."""

_LOOK_SECONDS = 1.0


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process as soon as the process ``parent``, which started it, is gone."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it was gone before the kernel knew
        os.kill(os.getpid(), signal.SIGKILL)


def die_with_torchrun() -> None:
    """Do so if torchrun has started this process, which it may have outlived already."""
    if not sys.platform.startswith("linux") or "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    parent = os.getppid()
    # In a container torchrun itself may be the first process.
    if parent == INIT_PID and b"torch" not in Path(f"/proc/{INIT_PID}/cmdline").read_bytes():
        os.kill(os.getpid(), signal.SIGKILL)
    die_with_parent(parent)


def die_with_mpirun() -> None:
    """Kill this process within a second after the one that started it is gone, be that mpirun or its daemon on a host.

    Not by the kernel as above: it watches the thread that has started a process, and Open MPI's thread ends first.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="watch-mpirun", daemon=True).start()
