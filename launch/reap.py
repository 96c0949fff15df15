"""Ends what is left of a launch on this node: ``python -m launch.reap FOLDER``, the folder of the launch's logs.

Ranks have sessions of their own, so that no group holds them all; what they have in common is a variable in their
environment.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from gptdist.telemetry.rank_log import LOG_DIR

PATIENCE_SECONDS = 5.0
_POLL_SECONDS = 0.1


def left_of(folder: str) -> list[int]:
    """Return the processes of the launch with the logs in ``folder`` that are alive here, this one left out."""
    marker, found = f"{LOG_DIR}={folder}".encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if marker in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


def reap(folder: str) -> int:
    """Kill all of them; return how many do not go."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (alive := left_of(folder)) and time.monotonic() < deadline:
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
    return len(alive)


if __name__ == "__main__":
    left = reap(sys.argv[1])
    if left:
        sys.stderr.write(f"{left} processes of {sys.argv[1]} do not end, not even by SIGKILL\n")
    sys.exit(1 if left else 0)
