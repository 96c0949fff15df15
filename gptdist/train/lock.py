"""The lock of a run's folder: one job at a time trains there."""

import contextlib
import fcntl
import logging
import os
from pathlib import Path
from typing import IO

from gptdist.errors import TrainingError
from gptdist.telemetry.fence import FIRST_LAUNCH

logger = logging.getLogger(__name__)


def lock_folder(folder: Path) -> IO[str]:
    """Keep other jobs out of a run's folder for as long as the returned file is open.

    A rank that the same supervisor has given up may hold it yet, on a host that was cut off.

    Raises:
        TrainingError: another job is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / ".lock").open("a+")
    owner = os.environ.get(FIRST_LAUNCH, "")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        if owner and file.read() == owner:
            logger.warning("%s: a rank of an attempt that was given up is still there; it may write no more", folder)
            return file
        file.close()
        raise TrainingError(
            f"{folder}: another job is training here; wait for it, stop it, or set another run_dir"
        ) from None
    file.truncate(0)
    with contextlib.suppress(OSError):  # a full disk is no reason not to go on
        os.write(file.fileno(), owner.encode())
    return file
