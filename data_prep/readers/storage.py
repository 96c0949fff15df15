"""Files here and elsewhere: a local path is opened as it is, a URL by fsspec."""

import io
import re
from pathlib import Path
from typing import IO, Any

from gptdist.errors import DataError

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""Extras of this package that bring a protocol's filesystem."""


def is_url(path: str) -> bool:
    """Whether ``path`` begins with a protocol such as ``s3://``."""
    return _URL.match(path) is not None


def printable(text: str) -> str:
    r"""Return ``text`` with what a terminal would act on, and bytes that are not UTF-8, written as ``\x1b``."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def open_filesystem(url: str, where: str) -> tuple[Any, str]:
    """Return the fsspec filesystem of a URL, and the URL's path in it.

    Raises:
        DataError: the protocol is unknown, or its package is not installed.
    """
    import fsspec

    protocol = url.partition("://")[0].lower()
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        extra = _EXTRAS.get(protocol)
        advice = f"pip install gptdist[{extra}]" if extra else "install the package that it names, or change the path"
        raise DataError(
            f"{where}: '{url}' needs a filesystem that is not there ({first_line(error)}); {advice}"
        ) from None


def open_file(path: str) -> IO[bytes]:
    """Open a local file or a URL for reading; a failure to read is an error whoever calls ``read``.

    Raises:
        DataError: it cannot be opened; or, later, cannot be read.
    """
    try:
        if not is_url(path):
            return io.BufferedReader(_Raw(io.FileIO(path), path), _BUFFER_BYTES)
        filesystem, inner = open_filesystem(path, printable(path))
        return io.BufferedReader(_Raw(filesystem.open(inner, "rb"), path), _BUFFER_BYTES)
    except OSError as error:
        raise cannot_read(path, error) from None


def cannot_read(path: str, error: Exception) -> DataError:
    """Return the error of a file that the disk or the network does not give."""
    reason = getattr(error, "strerror", None) or first_line(error)
    return DataError(f"{printable(path)}: cannot be read ({reason}); make it readable, or take it out of the source")


def first_line(error: Exception) -> str:
    """Return the beginning of what an error says."""
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0])


def version_of(path: str) -> str:
    """Return a string that changes when the file's content may have changed.

    Raises:
        DataError: the file cannot be looked at.
    """
    try:
        if is_url(path):
            filesystem, inner = open_filesystem(path, printable(path))
            return str(filesystem.ukey(inner))
        status = Path(path).stat()
    except OSError as error:
        raise cannot_read(path, error) from None
    return f"{status.st_size} {status.st_mtime_ns}"


_BUFFER_BYTES = 1 << 17


class _Raw(io.RawIOBase):
    """Reads a file, and turns its ``OSError`` into a ``DataError``: decompressors raise ``OSError`` for bad content."""

    def __init__(self, content: Any, path: str) -> None:
        self._content = content
        self._path = path

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def seekable(self) -> bool:
        """Whether it can be read from elsewhere."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read some bytes."""
        try:
            return self._content.readinto(buffer) or 0
        except OSError as error:
            raise cannot_read(self._path, error) from None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go elsewhere."""
        return int(self._content.seek(offset, whence))

    def tell(self) -> int:
        """Return where it is."""
        return int(self._content.tell())

    def close(self) -> None:
        """Close the file below."""
        self._content.close()
        super().close()


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
