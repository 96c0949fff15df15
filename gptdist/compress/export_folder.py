"""A folder that appears under its name whole, or not at all."""

import json
import logging
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gptdist.compress.bundle.sums import write_sums
from gptdist.compress.safetensors_export import WrittenFile, write_text
from gptdist.durable import swap_in, sync_file, sync_folder
from gptdist.errors import ExportError

logger = logging.getLogger(__name__)

RECORD_FILE = "export.json"
"""What an export says of itself; a folder without it is not ours and is never replaced."""

RECORD_FORMAT = "gptdist-export"


@contextmanager
def finished_folder(final: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a folder to fill; it is renamed to ``final`` when the block ends well, and removed otherwise.

    Args:
        final: the name it gets; its files have to be on disk by the end of the block.
        overwrite: whether an earlier export under that name is replaced.

    Raises:
        ExportError: ``final`` exists and may not be replaced, or the disk refuses.
    """
    _require_replaceable(final, overwrite=overwrite)
    for leftover in sorted(final.parent.glob(f".{final.name}.*.partial")):
        logger.warning("%s: left by an export that was killed; remove it unless one is running now", leftover)
    staging = final.parent / f".{final.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        staging.mkdir(parents=True)
        yield staging
        sync_folder(staging)
        swap_in(staging, final)
    except OSError as error:
        place = error.filename or final
        raise ExportError(f"{place}: {error.strerror or error}; make room, or choose another folder") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def finished_export(final: Path, facts: dict[str, Any], *, overwrite: bool) -> Iterator[tuple[Path, list[WrittenFile]]]:
    """Give a folder to fill and a list of its files to add to; at the end it gets its record and its hashes.

    Args:
        final: the name it gets.
        facts: what the record says; may grow in the block.
        overwrite: whether an earlier export under that name is replaced.

    Raises:
        ExportError: as ``finished_folder``.
    """
    files: list[WrittenFile] = []
    with finished_folder(final, overwrite=overwrite) as folder:
        yield folder, files
        for file in files:
            sync_file(folder / file.name)
        record = {"format": RECORD_FORMAT, "format_version": 1, **facts, "files": [asdict(file) for file in files]}
        files.append(write_text(folder / RECORD_FILE, json.dumps(record, indent=2) + "\n"))
        write_sums(folder, {file.name: file.sha256 for file in files})


def _require_replaceable(final: Path, *, overwrite: bool) -> None:
    if not final.exists() or (final.is_dir() and not any(final.iterdir())):
        return
    if not _is_export(final):
        raise ExportError(f"{final}: exists and is not an export of gptdist; choose another folder")
    if not overwrite:
        raise ExportError(f"{final}: holds an earlier export; replace it with --overwrite, or choose another folder")


def _is_export(folder: Path) -> bool:
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("format") == RECORD_FORMAT
