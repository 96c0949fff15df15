"""Whose turn it is to write a run's records: not that of a launch that was given up, on a host that was cut off.

Such a host may still reach the folder that all share. The newest launch leaves its name beside the launches' folders,
and rank 0 looks there before it gives a checkpoint its name or writes a line of the ledger.
"""

import os
from pathlib import Path

from gptdist.errors import TrainingError
from gptdist.telemetry.heartbeat import node_name
from gptdist.telemetry.rank_log import log_folder

CURRENT_NAME = "current"

FIRST_LAUNCH = "GPTDIST_FIRST_LAUNCH"
"""Environment variable: the first launch of the supervisor whose ranks these are. It is alone with its run, so that
among its ranks only the newest are wanted."""


def make_current(folder: Path) -> None:
    """Have the launch with the logs in ``folder`` be the one that may write from now on; any node may do so."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.parent / CURRENT_NAME
    mine = path.with_name(f"{CURRENT_NAME}.{node_name()}.{os.getpid()}")
    mine.write_text(folder.name)
    mine.replace(path)


def successor(folder: Path) -> str | None:
    """Return the name of the launch that goes on with the run instead of that with the logs in ``folder``, if any."""
    try:
        newest = (folder.parent / CURRENT_NAME).read_text()
    except FileNotFoundError:
        return None
    return None if newest == folder.name else newest


def check_current() -> None:
    """Return if this process's launch is the newest of its run, or it has none.

    Raises:
        TrainingError: names the one that is.
    """
    folder = log_folder()
    newest = None if folder is None else successor(folder)
    if newest is not None:
        raise TrainingError(
            f"{folder}: was given up, and {newest} goes on with the run; this rank writes no more and ends"
        )
