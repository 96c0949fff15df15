"""Finding files below the roots that a config names, in an order that does not depend on the disk."""

import os
import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.hashing import file_order_key
from data_prep.readers.storage import first_line, is_url, open_filesystem, printable
from gptdist.config.prep_sources import SITE_PACKAGES, STDLIB
from gptdist.errors import DataError

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_CACHE = "__pycache__"


@dataclass(frozen=True)
class FoundFile:
    """A file to read."""

    path: str
    """Local path, or URL that fsspec opens."""

    label: str
    """How provenance calls it: as the config writes the root, then the path below it; printable."""

    size: int


def find_files(roots: Sequence[str], *, include: Sequence[str], exclude: Sequence[str], where: str) -> list[FoundFile]:
    """Return the files of ``roots``, sorted by label.

    Folders are walked without following links to folders; a file named as a root itself is always taken.

    Raises:
        DataError: a root is missing or cannot be listed, or nothing below the roots matches.
    """
    included, excluded = [_pattern(text) for text in include], [_pattern(text) for text in exclude]
    found = []
    for root in roots:
        for file, below in _walk_url(root, where) if is_url(root) else _walk(root, where):
            wanted = below is None or any(pattern.fullmatch(below) for pattern in included)
            name = below or file.path.rpartition("/")[2]
            if wanted and not any(pattern.fullmatch(name) for pattern in excluded):
                found.append(file)
    if not found:
        raise DataError(
            f"{where}: empty: no file below {', '.join(roots)} matches {', '.join(include)}"
            f"{' without ' + ', '.join(exclude) if exclude else ''}; change paths or include"
        )
    return sorted(found, key=lambda file: file.label)


def in_random_order(files: Sequence[FoundFile], seed: int) -> list[FoundFile]:
    """Return ``files`` in a keyed order: its beginning is a random sample that other files do not change."""
    return sorted(files, key=lambda file: (file_order_key(seed, file.label), file.label))


def expand_root(root: str) -> Path:
    """Return the folder or file that ``root`` means; ``{stdlib}`` and ``{site-packages}`` are the running Python's."""
    for name, key in ((STDLIB, "stdlib"), (SITE_PACKAGES, "purelib")):
        if root == name or root.startswith(name + "/"):
            return Path(sysconfig.get_paths()[key] + root[len(name) :])
    return Path(root).expanduser()


def _walk(root: str, where: str) -> Iterator[tuple[FoundFile, str | None]]:
    """Yield the files of a local root, each with its path below the root (None where the root is the file)."""
    top = expand_root(root)
    if top.is_file():
        yield FoundFile(str(top), printable(root), top.stat().st_size), None
        return
    if not top.is_dir():
        raise DataError(f"{where}: path '{root}' does not exist; change paths")
    skipped = {_CACHE} | (_INSTALLED if root.startswith(STDLIB) else frozenset())
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(set(folders) - skipped)
        for name in sorted(names):
            path = Path(folder, name)
            below = path.relative_to(top).as_posix()
            if path.is_file():  # not a dangling link, socket or pipe
                yield FoundFile(str(path), printable(f"{root.rstrip('/')}/{below}"), path.stat().st_size), below


def _walk_url(root: str, where: str) -> Iterator[tuple[FoundFile, str | None]]:
    """Yield the files of a root that is a URL."""
    filesystem, top = open_filesystem(root, where)
    protocol = root.partition("://")[0]
    top = top.rstrip("/")
    try:
        listed = filesystem.find(top, detail=True)
    except Exception as error:  # each filesystem raises what its client library raises: no access, no network, …
        raise DataError(f"{where}: '{root}' cannot be listed ({first_line(error)}); check it and your access") from None
    if not listed:
        raise DataError(f"{where}: path '{root}' does not exist; change paths")
    for path, info in listed.items():
        below = None if path == top else path.removeprefix(top).lstrip("/")
        label = root.rstrip("/") + ("" if below is None else f"/{below}")
        yield FoundFile(f"{protocol}://{path}", printable(label), int(info["size"] or 0)), below


def _pattern(text: str) -> re.Pattern[str]:
    """Turn ``**/`` into any number of folders, ``*`` into anything but a slash, ``?`` into one such character."""
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", text)
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meaning.get(piece, re.escape(piece)) for piece in pieces), re.DOTALL)
