"""``SHA256SUMS`` of a folder that is handed on: written, and compared with what is there; no torch.

The file is what ``sha256sum --check`` reads. Where it is there, it names every file of the folder but itself and its
signature.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from gptdist.checkpoint.seals import SUMS_NAME
from gptdist.durable import write_whole
from gptdist.errors import BundleError

SIGNATURE_NAME = f"{SUMS_NAME}.sig"

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_ADVICE = "take another copy of the folder"


def write_sums(folder: Path, known: Mapping[str, str]) -> None:
    """Write the hash of every file of ``folder`` to its ``SHA256SUMS``, to disk for good.

    Args:
        folder: every file of it is there.
        known: hashes by name that were computed while writing, and are not computed again.
    """
    names = _names(folder)
    hashes = {name: known.get(name) or file_sha256(folder / name) for name in names}
    write_whole(folder / SUMS_NAME, "".join(f"{hashes[name]}  {name}\n" for name in names).encode())


def read_sums(folder: Path) -> dict[str, str] | None:
    """Return the hash of each file by its name in ``folder``; None where there is no ``SHA256SUMS``.

    Raises:
        BundleError: it is damaged, or names a file outside of the folder.
    """
    path = folder / SUMS_NAME
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError([f"{path}: cannot be read ({error}); {_ADVICE}"]) from None
    sums = {}
    for number, line in enumerate(lines, start=1):
        found = _LINE.fullmatch(line)
        place = PurePosixPath(found[2]) if found else None
        if found is None or place is None or place.is_absolute() or ".." in place.parts or "\\" in found[2]:
            raise BundleError([f"{path}:{number}: is no hash and name of a file in the folder; {_ADVICE}"])
        sums[found[2]] = found[1]
    return sums


def sums_problems(folder: Path) -> list[str]:
    """Return every file of ``folder`` that is missing, extra or not what ``SHA256SUMS`` says; reads all of it.

    Raises:
        BundleError: there is no ``SHA256SUMS``, or it is damaged.
    """
    sums = read_sums(folder)
    if sums is None:
        raise BundleError([f"{folder / SUMS_NAME}: missing; name a folder that 'gptdist export' wrote"])
    there = set(_names(folder))
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
        found = list(threads.map(lambda name: _problem(folder, name, sums[name]), sorted(sums)))
    extra = [f"{folder / name}: is not in {SUMS_NAME}; remove it, or {_ADVICE}" for name in sorted(there - sums.keys())]
    return [problem for problem in found if problem is not None] + extra


def require_whole(folder: Path, names: Iterable[str], known: Mapping[str, str] | None = None) -> None:
    """Refuse a folder with ``SHA256SUMS`` of which one of the files ``names`` is not what was written.

    Args:
        folder: one that is read; without ``SHA256SUMS`` there is nothing to compare with.
        names: of the files that are read; those that are not there are somebody else's to miss.
        known: hashes by name that the caller has computed.

    Raises:
        BundleError: with a line for each file that is off.
    """
    sums = read_sums(folder)
    if sums is None:
        return
    problems: list[str | None] = []
    for name in (name for name in names if (folder / name).exists()):
        if name in sums:
            problems.append(_problem(folder, name, sums[name], (known or {}).get(name)))
        else:
            problems.append(f"{folder / name}: is not in {SUMS_NAME}; remove it, or {_ADVICE}")
    if bad := [problem for problem in problems if problem is not None]:
        raise BundleError(bad)


def file_sha256(path: Path) -> str:
    """Return a file's hash; reads all of it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _names(folder: Path) -> list[str]:
    """Every file below ``folder`` but the sums and their signature, links included."""
    found = [
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
    ]
    return sorted(set(found) - {SUMS_NAME, SIGNATURE_NAME})


def _problem(folder: Path, name: str, expected: str, found: str | None = None) -> str | None:
    path = folder / name
    if path.is_symlink():
        return f"{path}: is a link to elsewhere; {_ADVICE}"
    if not path.is_file():
        return f"{path}: missing; {_ADVICE}"
    try:
        found = found or file_sha256(path)
    except OSError as error:
        return f"{path}: cannot be read ({error}); {_ADVICE}"
    if found == expected:
        return None
    return f"{path}: sha256 {found[:12]}… where {SUMS_NAME} says {expected[:12]}…; {_ADVICE}"
