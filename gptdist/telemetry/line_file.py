"""Files of JSON lines: whole lines only, and a full disk delays them but does not end the run."""

import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

MOST_WAITING = 10_000
"""Lines that are kept in memory at most while the disk refuses them."""


class LineFile:
    """Appends records to a file."""

    def __init__(self, path: Path) -> None:
        """Append to ``path``, which need not exist."""
        self._path = path
        self._waiting: list[bytes] = []

    def append(self, record: dict[str, Any]) -> None:
        """Append one line, behind those that the disk has refused so far; if it refuses again, all of them wait.

        Raises:
            OSError: too many wait.
        """
        self._waiting.append(json_line(record))
        try:
            append_whole(self._path, b"".join(self._waiting))
        except OSError as error:
            if len(self._waiting) == 1:
                logger.warning("%s: lines wait in memory until the disk takes them (%s)", self._path, error)
            if len(self._waiting) >= MOST_WAITING:
                raise
        else:
            self._waiting.clear()


def json_line(record: dict[str, Any]) -> bytes:
    """Return ``record`` as a line."""
    return json.dumps(record).encode() + b"\n"


def append_whole(path: Path, content: bytes) -> None:
    """Append ``content`` in one write, so that a killed process leaves no half line before another's.

    Raises:
        OSError: the disk has no room for all of it; then nothing of it stays.
    """
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        if file.write(content) != len(content):
            os.ftruncate(file.fileno(), size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
