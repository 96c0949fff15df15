"""Files with records that are not what they should be, among others that are good."""

import gzip
import random
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.web_archives import gzip_member, json_line, response_record, warcinfo
from tests.support.web_page import WebPage, http_response, make_page
from tests.support.web_phrases import write_article

NESTING = 100_000
LARGE_PAGE_BYTES = 25_000_000
LONG_LINE_BYTES = 110_000_000
BOMB_BYTES = 1_000_000_000
_BLOCK = 1_000_000


@dataclass(frozen=True)
class Broken:
    """A file and what is in it."""

    path: Path
    format: str
    """``warc``, ``jsonl`` or ``parquet``."""

    good: tuple[str, ...]
    """URLs of the records that are whole."""

    bad: tuple[str, ...] = ()
    """URLs of the records that are not, where they have one."""


def write_broken(folder: Path) -> Mapping[str, Broken]:
    """Write a file for each kind of damage; return them by kind.

    WARC: truncated_gzip, truncated_plain, length_too_long, length_too_short, not_utf8_page, nul_page, deep_page,
    large_page, bomb_page, not_warc. JSON Lines: not_utf8_line, nul_text, lone_surrogate, not_json, nested_json,
    no_text, long_line, bomb_line. Parquet: no_column, truncated_parquet.
    """
    folder.mkdir()
    rng = random.Random("broken")
    good = [
        make_page(f"https://good.example/{number}", "article", write_article("en", rng), rng) for number in range(4)
    ]
    return {**_write_warcs(folder, good), **_write_lines(folder, good), **_write_tables(folder, good)}


def deflated(parts: Mapping[str, bytes], size: int, *, filler: bytes = b" ") -> bytes:
    """Return a gzip member that unpacks to ``parts['before']``, ``size`` bytes of filler, and ``parts['after']``.

    A flushed block of deflate refers to nothing before it, so one block repeated is all there is to do: a bomb of a
    gigabyte costs its checksum.
    """
    block = filler * _BLOCK
    times, rest = divmod(size, _BLOCK)
    total = len(parts["before"]) + size + len(parts["after"])
    checksum = zlib.crc32(parts["before"])
    for _ in range(times):
        checksum = zlib.crc32(block, checksum)
    checksum = zlib.crc32(filler * rest + parts["after"], checksum)
    data = _flushed(parts["before"]) + _flushed(block) * times + _flushed(filler * rest + parts["after"], last=True)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + data + struct.pack("<II", checksum, total % 2**32)


def _flushed(data: bytes, *, last: bool = False) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush(zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH)


def _response(page: WebPage, length: int | None = None) -> bytes:
    return response_record(page.url, page.response(), length)


def _page_record(url: str, html: bytes, charset: str = "utf-8") -> bytes:
    return response_record(url, http_response(html, f"text/html; charset={charset}", "plain"))


def _write_warcs(folder: Path, good: list[WebPage]) -> dict[str, Broken]:
    before, after = good[:2], good[2:]
    url = "https://bad.example/page"
    html = good[0].html
    bomb = deflated({"before": b"<html><body><p>", "after": b"</p></body></html>"}, BOMB_BYTES)
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    )
    records: dict[str, Callable[[], bytes]] = {
        "length_too_long": lambda: gzip_member(response_record(url, http_response(html, "text/html", "plain"), 10**9)),
        "length_too_short": lambda: gzip_member(response_record(url, http_response(html, "text/html", "plain"), 300)),
        "not_utf8_page": lambda: gzip_member(_page_record(url, html.replace(b"</p>", b"caf\xe9 \xff\xfe</p>"))),
        "nul_page": lambda: gzip_member(_page_record(url, html.replace(b"</p>", b"\0 nothing \0\0</p>"))),
        "deep_page": lambda: gzip_member(
            _page_record(url, b"<div>" * NESTING + b"<p>far below</p>" + b"</div>" * NESTING)
        ),
        "large_page": lambda: gzip_member(_page_record(url, html + b"<p>one more</p>\n" * (LARGE_PAGE_BYTES // 16))),
        "bomb_page": lambda: gzip_member(response_record(url, head.encode() + bomb)),
        "not_warc": lambda: gzip_member(b"<html>this is no record</html>\r\n\r\n"),
    }
    broken = {}
    for kind, record in records.items():
        whole = [warcinfo(kind), *map(_response, before)], list(map(_response, after))
        parts = [*map(gzip_member, whole[0]), record(), *map(gzip_member, whole[1])]
        broken[kind] = Broken(folder / f"{kind}.warc.gz", "warc", tuple(page.url for page in good), (url,))
        broken[kind].path.write_bytes(b"".join(parts))
    records_of_good = [warcinfo("truncated"), *map(_response, good)]
    urls = [page.url for page in good]
    for kind, data in (
        ("truncated_gzip", b"".join(map(gzip_member, records_of_good))),
        ("truncated_plain", b"".join(records_of_good)),
    ):
        path = folder / (f"{kind}.warc.gz" if kind == "truncated_gzip" else f"{kind}.warc")
        path.write_bytes(data[:-400])
        broken[kind] = Broken(path, "warc", tuple(urls[:-1]), tuple(urls[-1:]))
    return broken


def _write_lines(folder: Path, good: list[WebPage]) -> dict[str, Broken]:
    lines = {
        "not_utf8_line": b'{"text": "caf\xe9 and \xff", "url": "https://bad.example/line"}\n',
        "nul_text": b'{"text": "a zero \\u0000 stands here, and it is text", "url": "https://bad.example/line"}\n',
        "lone_surrogate": b'{"text": "half a character: \\ud83d", "url": "https://bad.example/line"}\n',
        "not_json": b'{"text": "the line ends too ea\n',
        "nested_json": b'{"text": "a", "more": ' + b"[" * NESTING + b"]" * NESTING + b"}\n",
        "no_text": b'{"content": "under another key", "url": "https://bad.example/line"}\n',
    }
    urls = tuple(page.url for page in good)
    before, after = b"".join(map(json_line, good[:2])), b"".join(map(json_line, good[2:]))
    broken = {}
    for kind, line in lines.items():
        broken[kind] = Broken(folder / f"{kind}.jsonl", "jsonl", urls)
        broken[kind].path.write_bytes(before + line + after)
    for kind, size in (("long_line", LONG_LINE_BYTES), ("bomb_line", BOMB_BYTES)):
        line = deflated({"before": b'{"text": "', "after": b'"}\n'}, size, filler=b"a")
        broken[kind] = Broken(folder / f"{kind}.jsonl.gz", "jsonl", urls)
        parts = (gzip.compress(before, mtime=0), line, gzip.compress(after, mtime=0))
        broken[kind].path.write_bytes(b"".join(parts))
    return broken


def _write_tables(folder: Path, good: list[WebPage]) -> dict[str, Broken]:
    rows = [{"content": page.text, "url": page.url} for page in good]
    no_column = Broken(folder / "no_column.parquet", "parquet", ())
    pq.write_table(pa.Table.from_pylist(rows), no_column.path)
    truncated = Broken(folder / "truncated.parquet", "parquet", ())
    pq.write_table(pa.Table.from_pylist([{"text": page.text, "url": page.url} for page in good]), truncated.path)
    truncated.path.write_bytes(truncated.path.read_bytes()[:-100])
    return {"no_column": no_column, "truncated_parquet": truncated}
