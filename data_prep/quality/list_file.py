"""Files that hold a list, one entry a line."""

from collections.abc import Iterator
from pathlib import Path

from gptdist.errors import DataError

_BLOCK_BYTES = 1 << 20


def entry_lines(path: Path, where: str) -> Iterator[bytes]:
    """Yield the entries of a list without comments, blank lines and white space around them; not all at once.

    Args:
        path: a file in UTF-8; ``#`` at the beginning of a line or after white space begins a comment.
        where: the config key that names it.

    Raises:
        DataError: the file cannot be read or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while lines := file.readlines(_BLOCK_BYTES):
                for raw in lines:
                    number += 1
                    line = _without_comment(raw)
                    if line and not line.isascii():
                        _check(line, path, number)
                    if line:
                        yield line
    except OSError as error:
        raise DataError(f"{where}: '{path}' cannot be read ({error.strerror}); change the path") from error


def _without_comment(raw: bytes) -> bytes:
    line = raw.removeprefix(b"\xef\xbb\xbf").strip()
    if b"#" not in line:
        return line
    if line.startswith(b"#"):
        return b""
    for mark in (b" #", b"\t#"):
        line = line.partition(mark)[0]
    return line.strip()


def _check(line: bytes, path: Path, number: int) -> None:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{number}: is not UTF-8 ({error.reason}); convert the file") from error
