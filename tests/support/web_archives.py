"""The pages of the test corpus as files: WARC, WET, JSON Lines, Parquet and a folder of HTML."""

import base64
import gzip
import hashlib
import json
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.web_page import WebPage, http_response
from tests.support.web_phrases import ISO_639_3

_DATE = "2024-05-18T05:36:15Z"
_NOT_HTML = ((b"%PDF-1.4\n%%EOF\n", "application/pdf"), (b"\x89PNG\r\n\x1a\n" + bytes(32), "image/png"))
_NOT_HTML_EVERY = 20


def write_warc(path: Path, pages: Sequence[WebPage]) -> tuple[str, ...]:
    """Write request, response and metadata of each page, now and then a file that is none; return those's URLs."""
    records = [warcinfo(path.name)]
    others = []
    for number, page in enumerate(pages):
        if number % _NOT_HTML_EVERY == _NOT_HTML_EVERY // 2:
            body, media_type = _NOT_HTML[number // _NOT_HTML_EVERY % len(_NOT_HTML)]
            others.append(f"{page.url}.{media_type[-3:]}")
            records.append(response_record(others[-1], http_response(body, media_type, "plain")))
        request = f"GET {page.url} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        records += [
            warc_record("request", request, page.url, "application/http; msgtype=request"),
            response_record(page.url, page.response()),
            warc_record("metadata", b"fetchTimeMs: 42\r\n", page.url, "application/warc-fields"),
        ]
    path.write_bytes(b"".join(gzip_member(record) for record in records))
    return tuple(others)


def write_wet(path: Path, pages: Sequence[WebPage]) -> tuple[str, ...]:
    """Write the visible text of each page as a conversion record."""
    records = [warcinfo(path.name)]
    for page in pages:
        more = {"WARC-Identified-Content-Language": ISO_639_3[page.language]}
        records.append(warc_record("conversion", page.visible_text.encode(), page.url, "text/plain", more))
    path.write_bytes(b"".join(gzip_member(record) for record in records))
    return ()


def write_jsonl(path: Path, pages: Sequence[WebPage]) -> tuple[str, ...]:
    """Write text, url and language of each page as a line."""
    path.write_bytes(gzip.compress(b"".join(json_line(page) for page in pages), mtime=0))
    return ()


def write_parquet(path: Path, pages: Sequence[WebPage]) -> tuple[str, ...]:
    """Write text, url, language and html of each page as a row, ten rows a row group."""
    rows = [{"text": p.text, "url": p.url, "language": p.language, "html": p.html} for p in pages]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=10)
    return ()


def write_html(path: Path, pages: Sequence[WebPage]) -> tuple[str, ...]:
    """Write the bytes of each page as a file of a folder."""
    path.mkdir()
    for number, page in enumerate(pages):
        (path / f"{number:05d}.html").write_bytes(page.html)
    return ()


WRITERS: MappingProxyType[str, tuple[str, Callable[[Path, Sequence[WebPage]], tuple[str, ...]]]] = MappingProxyType(
    {
        "warc": (".warc.gz", write_warc),
        "wet": (".warc.wet.gz", write_wet),
        "jsonl": (".jsonl.gz", write_jsonl),
        "parquet": (".parquet", write_parquet),
        "html": ("", write_html),
    }
)
"""Format -> suffix, and what writes it."""


def json_line(page: WebPage) -> bytes:
    """Return the page's line of a JSON Lines file."""
    row = {"text": page.text, "url": page.url, "language": page.language}
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def warcinfo(name: str) -> bytes:
    """Return the record that begins a file."""
    fields = b"software: tests/support/web_archives.py\r\nformat: WARC File Format 1.0\r\n"
    return warc_record("warcinfo", fields, None, "application/warc-fields", {"WARC-Filename": name})


def response_record(url: str, response: bytes, length: int | None = None) -> bytes:
    """Return a response record; ``length`` says something else of it than the truth."""
    return warc_record("response", response, url, "application/http; msgtype=response", length=length)


def warc_record(
    kind: str,
    block: bytes,
    url: str | None,
    content_type: str,
    more: dict[str, str] | None = None,
    length: int | None = None,
) -> bytes:
    """Return a WARC record, with identifiers that depend on its content alone."""
    digest = base64.b32encode(hashlib.sha1(block, usedforsecurity=False).digest()).decode()
    fields = {
        "WARC-Type": kind,
        "WARC-Date": _DATE,
        "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{kind} {url}')}>",
        **({"WARC-Target-URI": url} if url else {}),
        "WARC-Block-Digest": f"sha1:{digest}",
        "Content-Type": content_type,
        **(more or {}),
        "Content-Length": str(len(block) if length is None else length),
    }
    head = "WARC/1.0\r\n" + "".join(f"{key}: {value}\r\n" for key, value in fields.items())
    return head.encode() + b"\r\n" + block + b"\r\n\r\n"


def gzip_member(record: bytes) -> bytes:
    """Return a record as Common Crawl has it: a gzip member of its own."""
    return gzip.compress(record, mtime=0)
