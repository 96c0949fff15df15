"""Files and folders that appear whole or not at all, whatever kills the process or the machine."""

import os
import shutil
from pathlib import Path

PARTIAL_SUFFIX = ".partial"
"""End of the name of a file that is still being written; nothing reads such a file."""


def partial_path(path: Path) -> Path:
    """Return where to write what will be ``path``."""
    return path.with_name(path.name + PARTIAL_SUFFIX)


def publish(path: Path) -> None:
    """Give the finished ``partial_path(path)`` its name, once its content is on the disk."""
    partial = partial_path(path)
    sync_file(partial)
    replace(partial, path)


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file."""
    partial_path(path).write_bytes(content)
    publish(path)


def replace(source: Path, target: Path) -> None:
    """Rename ``source`` to ``target``, durably; a file there is replaced, a folder has to be gone."""
    source.replace(target)
    sync_folder(target.parent)


def sync_file(path: Path) -> None:
    """Bring a file's content to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring the names in ``folder`` to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def swap_in(finished: Path, target: Path) -> None:
    """Put the folder ``finished`` in the place of ``target``; in between nothing is there, never a mixture."""
    retired = finished.with_name(finished.name + ".retired")
    shutil.rmtree(retired, ignore_errors=True)  # left by a kill
    if target.exists():
        replace(target, retired)
    replace(finished, target)
    shutil.rmtree(retired, ignore_errors=True)
