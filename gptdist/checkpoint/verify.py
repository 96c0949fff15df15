"""Tell a whole checkpoint from a damaged one; no torch."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from gptdist.checkpoint.keys import TrustedKey
from gptdist.checkpoint.manifest import MANIFEST_NAME, FileEntry, Manifest, SourceRecord, read_manifest
from gptdist.checkpoint.seals import seal_problems
from gptdist.errors import CheckpointError


def verify(folder: Path, trusted: TrustedKey | None = None) -> list[str]:
    """Return everything that is wrong with a step folder: each file's presence, size and hash. Reads all of it.

    With a ``trusted`` key it has to be signed.
    """
    try:
        manifest = read_manifest(folder)
    except CheckpointError as error:
        return [str(error)]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:  # hashes are what takes the time
        problems = list(threads.map(partial(_file_problem, folder), manifest.files))
    return [
        *_misnamed(folder, manifest),
        *(problem for problem in problems if problem is not None),
        *missing_values(folder, manifest),
        *seal_problems(folder, manifest, trusted),
    ]


def quick_problems(folder: Path, manifest: Manifest) -> list[str]:
    """Return what is wrong with a step folder that shows without its content: its name, missing files, their sizes."""
    problems = (_size_problem(folder, entry) for entry in manifest.files)
    found = [problem for problem in problems if problem is not None]
    return [*_misnamed(folder, manifest), *found, *missing_values(folder, manifest)]


def _misnamed(folder: Path, manifest: Manifest) -> list[str]:
    if not folder.name.startswith("step_") or folder.name == f"step_{manifest.step:08d}":
        return []
    return [f"{folder}: holds step {manifest.step}; it was renamed, give it back its name"]


def missing_values(folder: Path, manifest: Manifest) -> list[str]:
    """Return each tensor of which the fragments do not add up to all values."""
    held = dict.fromkeys((entry.name for entry in manifest.tensors), 0)
    for fragment in manifest.fragments:
        held[fragment.tensor] = held.get(fragment.tensor, 0) + fragment.numel
    sizes = {entry.name: entry.outer * entry.length * entry.inner for entry in manifest.tensors}
    return [
        f"{folder}: '{name}' has {count} of {sizes.get(name, 0)} values"
        for name, count in held.items()
        if count != sizes.get(name, 0)
    ]


def describe_file(path: Path) -> FileEntry:
    """Return a file's name, size and hash; reads all of it."""
    with path.open("rb") as file:
        return FileEntry(
            name=path.name, num_bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest()
        )


def source_record(folder: Path, manifest: Manifest, *, share: float = 1.0) -> SourceRecord:
    """Return what is noted of a checkpoint whose weights go into something."""
    return SourceRecord(
        path=str(folder), step=manifest.step, share=share, files=(describe_file(folder / MANIFEST_NAME),)
    )


def _size_problem(folder: Path, entry: FileEntry) -> str | None:
    path = folder / entry.name
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return f"{path}: missing"
    return None if size == entry.num_bytes else f"{path}: has {size} bytes, the manifest says {entry.num_bytes}"


def _file_problem(folder: Path, entry: FileEntry) -> str | None:
    """Return what is wrong with a file, or None; reads all of it."""
    problem = _size_problem(folder, entry)
    if problem is not None:
        return problem
    path = folder / entry.name
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != entry.sha256:
        return f"{path}: content has sha256 {found[:12]}, the manifest says {entry.sha256[:12]}"
    return None
