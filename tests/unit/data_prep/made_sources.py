"""Sources, web archives among them, made by hand so that they can be wrong in every way."""

import gzip
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_prep.account import Account
from data_prep.document import Document
from data_prep.readers.reader import open_readers
from data_prep.work import Piece
from tests.unit.data_prep.made_corpus import make_config


def read(tmp_path: Path, source: dict[str, Any], **changes: Any) -> tuple[list[Document], Account]:
    """Read all of a source."""
    (reader,) = open_readers(make_config(tmp_path / "out", source, **changes))
    account = Account("w", 0.99)
    return list(account.reading(reader.documents(reader.pieces(), account))), account


def pieces_of(tmp_path: Path, source: dict[str, Any], **changes: Any) -> list[Piece]:
    """Return the pieces of a source."""
    (reader,) = open_readers(make_config(tmp_path / "out", source, **changes))
    return reader.pieces()


@contextmanager
def at_most(peak_bytes: int) -> Iterator[None]:
    """Fail if more memory than this is taken at any time, by Python's objects."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < peak_bytes
    finally:
        tracemalloc.stop()


def source(kind: str, path: Path | str, **changes: Any) -> dict[str, Any]:
    """Return a source of files."""
    return {"name": kind, "kind": kind, "paths": [str(path)], **changes}


def hub(path: Path | str, **changes: Any) -> dict[str, Any]:
    """Return a ``huggingface`` source."""
    return {"name": "rows", "kind": "huggingface", "dataset": str(path), **changes}


def http(body: bytes, media: str | None = "text/html; charset=utf-8", extra: str = "", status: str = "200 OK") -> bytes:
    """Return an HTTP response."""
    media_line = f"Content-Type: {media}\r\n" if media is not None else ""
    return f"HTTP/1.1 {status}\r\n{media_line}{extra}\r\n".encode() + body


def record(
    content: bytes,
    kind: str = "response",
    url: str = "http://example.org/",
    length: int | str | None = None,
    media: str = "application/http; msgtype=response",
) -> bytes:
    """Return a WARC record, whose length may be a lie."""
    stated = len(content) if length is None else length
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nContent-Type: {media}\r\n"
    return f"{head}Content-Length: {stated}\r\n\r\n".encode() + content + b"\r\n\r\n"


def page_record(number: int, **changes: Any) -> bytes:
    """Return the record of a page that has its number in text and address."""
    body = f"<html><body><p>Page {number} says this.</p></body></html>".encode()
    return record(http(body), url=f"http://example.org/{number}", **changes)


def zipped(*records: bytes) -> bytes:
    """Return records, each compressed by itself."""
    return b"".join(gzip.compress(one, mtime=0) for one in records)
