"""Finding files below the roots that a config names, in an order that does not depend on the disk."""

import os
import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.hashing import order_key
from gptdist.config.prep import SITE_PACKAGES, STDLIB
from gptdist.errors import DataError

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_CACHE = "__pycache__"


@dataclass(frozen=True)
class FoundFile:
    """A file to read."""

    path: Path
    label: str
    """How provenance calls it: as the config writes the root, then the path below it."""

    size: int


def find_files(roots: Sequence[str], *, include: Sequence[str], exclude: Sequence[str], where: str) -> list[FoundFile]:
    """Return the files of ``roots``, sorted by label.

    Folders are walked without following links to folders; a file named as a root itself is always taken.

    Raises:
        DataError: a root is missing, or nothing below the roots matches.
    """
    included, excluded = [_pattern(text) for text in include], [_pattern(text) for text in exclude]
    found = []
    for root in roots:
        for path, label, below in _walk(root, where):
            wanted = below is None or any(pattern.fullmatch(below) for pattern in included)
            if wanted and not any(pattern.fullmatch(below or path.name) for pattern in excluded):
                found.append(FoundFile(path, label, path.stat().st_size))
    if not found:
        raise DataError(
            f"{where}: empty: no file below {', '.join(roots)} matches {', '.join(include)}"
            f"{' without ' + ', '.join(exclude) if exclude else ''}; change paths or include"
        )
    return sorted(found, key=lambda file: file.label)


def in_random_order(files: Sequence[FoundFile], seed: int) -> list[FoundFile]:
    """Return ``files`` in a keyed order: its beginning is a random sample that other files do not change."""
    return sorted(files, key=lambda file: (order_key(seed, file.label.encode()), file.label))


def expand_root(root: str) -> Path:
    """Return the folder or file that ``root`` means; ``{stdlib}`` and ``{site-packages}`` are the running Python's."""
    for name, key in ((STDLIB, "stdlib"), (SITE_PACKAGES, "purelib")):
        if root == name or root.startswith(name + "/"):
            return Path(sysconfig.get_paths()[key] + root[len(name) :])
    return Path(root).expanduser()


def _walk(root: str, where: str) -> Iterator[tuple[Path, str, str | None]]:
    """Yield path, label, and the path below the root (None where the root is the file)."""
    top = expand_root(root)
    if top.is_file():
        yield top, root, None
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
                yield path, _printable(f"{root.rstrip('/')}/{below}"), below


def _printable(label: str) -> str:
    r"""Return ``label`` with bytes of a file name that are not UTF-8 written as ``\xff``."""
    return label.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _pattern(text: str) -> re.Pattern[str]:
    """Turn ``**/`` into any number of folders, ``*`` into anything but a slash, ``?`` into one such character."""
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", text)
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meaning.get(piece, re.escape(piece)) for piece in pieces), re.DOTALL)
