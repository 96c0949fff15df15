"""Keep a checkpoint from being deleted while it is read, by a lock on its manifest that no kill leaves behind."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from gptdist.checkpoint.manifest import MANIFEST_NAME
from gptdist.errors import CheckpointError


def hold(folder: Path) -> IO[bytes] | None:
    """Keep ``folder`` from being deleted for as long as the returned file is open; none if there is no manifest.

    On a file system without locks nothing is held.

    Raises:
        CheckpointError: it is being deleted.
    """
    try:
        file = (folder / MANIFEST_NAME).open("rb")
    except OSError:
        return None  # whoever reads the manifest says what is wrong with it
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise CheckpointError(f"{folder}: is being deleted; name a newer checkpoint") from None
    except OSError:
        pass  # no locks here
    return file


@contextmanager
def unheld(folder: Path) -> Iterator[bool]:
    """Say whether nobody holds ``folder``, and keep others from it until the end of the block."""
    try:
        file = (folder / MANIFEST_NAME).open("r+b")  # over NFS, only who may write can exclude others
    except FileNotFoundError:
        yield True
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass  # no locks here
        yield True
