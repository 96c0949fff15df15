"""Web archives: what is read of them, and how reading goes on behind damage."""

import gzip
import io
import zlib
from collections import Counter
from pathlib import Path

import pytest
import zstandard
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from data_prep.account import Account
from data_prep.document import Document, Page
from tests.unit.data_prep.made_sources import at_most, http, page_record, pieces_of, read, record, source, zipped

PAGES = [page_record(number) for number in range(4)]
BODY = b"<p>hello there</p>" * 10


def read_bytes(
    tmp_path: Path, content: bytes, name: str = "a.warc.gz", **changes: int
) -> tuple[list[Document], Account]:
    (tmp_path / name).write_bytes(content)
    return read(tmp_path, source("warc", tmp_path / name), **changes)


def numbers(documents: list[Document]) -> list[str]:
    return [(document.url or "").rpartition("/")[2] for document in documents]


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "a.warc.zst"])
def test_offsets_are_those_of_records(name: str, tmp_path: Path) -> None:
    pack = {"a.warc": lambda one: one, "a.warc.gz": zipped, "a.warc.zst": zstandard.compress}[name]
    packed = [pack(page) for page in PAGES]
    documents, account = read_bytes(tmp_path, b"".join(packed), name)
    begins = [sum(map(len, packed[:number])) for number in range(4)]
    assert [(document.record, document.offset) for document in documents] == list(zip(begins, begins, strict=True))
    assert documents[1].path == str(tmp_path / name)
    assert documents[1].url == "http://example.org/1"
    assert documents[1].page == Page(b"<html><body><p>Page 1 says this.</p></body></html>", "utf-8")
    assert not account.damage
    assert not account.counts


def test_a_file_that_another_program_wrote(tmp_path: Path) -> None:
    written = io.BytesIO()
    writer = WARCWriter(written, gzip=True)
    writer.write_record(writer.create_warcinfo_record("a.warc.gz", {"software": "warcio"}))
    headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=ISO-8859-2")], protocol="HTTP/1.0")
    for number in range(3):
        writer.write_record(
            writer.create_warc_record(
                f"http://example.org/{number}", "response", payload=io.BytesIO(BODY), http_headers=headers
            )
        )
    documents, account = read_bytes(tmp_path, written.getvalue())
    assert numbers(documents) == ["0", "1", "2"]
    assert documents[0].page == Page(BODY, "iso-8859-2")
    assert account.counts == {"read.warcinfo": 1}
    assert not account.damage


def test_wet_records_are_texts(tmp_path: Path) -> None:
    texts = ["naïve text", "第二份文件", "with\0nul"]
    records = [
        record(text.encode(), "conversion", f"http://a.org/{i}", media="text/plain") for i, text in enumerate(texts)
    ]
    records.append(record(b"caf\xe9", "conversion", media="text/plain"))
    records.append(record(b" \n", "conversion", media="text/plain"))
    documents, account = read_bytes(tmp_path, zipped(*records), "a.wet.gz")
    assert [document.text for document in documents] == ["naïve text", "第二份文件", "withnul"]
    assert [document.page for document in documents] == [None] * 3
    assert account.damage == {"not_utf8": 1}
    assert account.counts == {"read.nul": 1}
    assert [row.outcome for row in account.rows] == ["read.empty"]


def test_what_is_no_page_is_counted(tmp_path: Path) -> None:
    records = [
        record(b"GET / HTTP/1.1\r\n\r\n", "request"),
        record(b"a: b\r\n", "metadata", media="application/warc-fields"),
        record(http(b"%PDF", "application/pdf")),
        record(http(b"odd", 'evil/../../x"')),
        record(http(b"<p>none", None)),
        record(http(b"<p>gone", status="404 Not Found")),
        record(http(b"<p>odd", status="99999 Odd")),
        record(b"example.org 1.2.3.4", media="text/dns"),
        record(http(b"<p>page", "Application/XHTML+xml")),
        record(b'{"a": 1}', "conversion", media="application/json"),
        record(http(b" \r\n")),
    ]
    documents, account = read_bytes(tmp_path, zipped(*records))
    assert [document.page for document in documents] == [Page(b"<p>page", None)]
    assert dict(account.counts) == {
        "read.request": 1,
        "read.metadata": 1,
        "read.application/pdf": 1,
        "read.unknown_media_type": 1,
        "read.no_media_type": 1,
        "read.http_404": 1,
        "read.http_none": 1,
        "read.response_not_http": 1,
        "read.application/json": 1,
    }
    assert [row.outcome for row in account.rows] == ["read.empty"]


def test_addresses_in_angle_brackets(tmp_path: Path) -> None:
    documents, _ = read_bytes(
        tmp_path, zipped(page_record(1).replace(b"http://example.org/1", b"<http://example.org/1>"))
    )
    assert documents[0].url == "http://example.org/1"


def raw_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


@pytest.mark.parametrize(
    ("stored", "header"),
    [
        (gzip.compress(BODY, mtime=0), "Content-Encoding: gzip"),
        (zlib.compress(BODY), "Content-Encoding: deflate"),
        (raw_deflate(BODY), "Content-Encoding: DEFLATE"),
        (zstandard.compress(BODY), "Content-Encoding: zstd"),
        (b"b4\r\n" + BODY + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
        (b"5a;x=y\r\n" + BODY[:90] + b"\r\n5A\r\n" + BODY[90:] + b"\r\n0\r\n\r\n", "Transfer-Encoding: Chunked"),
        (
            b"%x\r\n" % len(gzip.compress(BODY, mtime=0)) + gzip.compress(BODY, mtime=0) + b"\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\nContent-Encoding: gzip",
        ),
        (BODY, "Content-Encoding: identity"),
        (BODY, "Content-Encoding: gzip"),
        (BODY, "Content-Encoding: br"),
        (BODY, "Transfer-Encoding: chunked"),
        (BODY, "X-Crawler-Content-Encoding: gzip"),
    ],
)
def test_encoded_bodies(stored: bytes, header: str, tmp_path: Path) -> None:
    """Also those of which the crawler undid the encoding and left the header."""
    documents, account = read_bytes(tmp_path, zipped(record(http(stored, extra=header + "\r\n"))))
    assert [document.page for document in documents] == [Page(BODY, "utf-8")]
    assert not account.damage


@pytest.mark.parametrize(
    ("stored", "header", "reason"),
    [
        (gzip.compress(BODY, mtime=0)[:-20], "Content-Encoding: gzip", "the compressed body is cut short"),
        (gzip.compress(BODY, mtime=0)[:-8] + b"\xff" * 8, "Content-Encoding: gzip", "Error -3 while decompressing"),
        (b"\x00\x01", "Content-Encoding: br", "page cannot be decoded"),
        (b"xyz", "Content-Encoding: rot13", "Content-Encoding 'rot13' is unknown"),
        (b"5\r\nhello\r\n6\r\n wo", "Transfer-Encoding: chunked", "the chunks end at byte 10 without a last one"),
    ],
)
def test_bodies_that_cannot_be_decoded(stored: bytes, header: str, reason: str, tmp_path: Path) -> None:
    documents, account = read_bytes(tmp_path, zipped(record(http(stored, extra=header + "\r\n")), PAGES[1]))
    assert numbers(documents) == ["1"]
    assert account.damage == {"bad_body": 1}
    assert account.damage_examples[0].startswith(f"{tmp_path}/a.warc.gz, byte 0: page cannot be decoded (")
    assert reason in account.damage_examples[0]


LIAR = http(b"<p>liar</p>" * 30)
LIES = {
    "longer, into the next record": (record(LIAR, length=len(LIAR) + 150), "bad_length"),
    "longer, over the next record": (record(LIAR, length=len(LIAR) + len(PAGES[0]) + 60), "bad_length"),
    "longer than the file": (record(LIAR, length=len(LIAR) + 50_000), "bad_length"),
    "far too long": (record(LIAR, length=10**12), "record_too_large"),
    "shorter": (record(LIAR, length=len(LIAR) - 50), "bad_length"),
    "nothing": (record(LIAR, length=0), "bad_length"),
    "negative": (record(LIAR, length=-5), "bad_length"),
    "no number": (record(LIAR, length="many"), "bad_length"),
    "missing": (record(LIAR).replace(b"Content-Length", b"X-Length"), "bad_header"),
    "no header": (b"WARC/1.0\r\n\r\n", "bad_header"),
    "junk": (b"junk junk\r\n" * 10, "bad_header"),
    "too large": (record(http(b"<p>" + b"x" * 200_000)), "record_too_large"),
    "HTTP header too long": (record(http(b"<p>x", extra="X: " + "a" * 100_000 + "\r\n")), "bad_http_header"),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("layout", ["plain", "a record each", "one stream"])
def test_reading_goes_on_behind_a_lie(lie: str, layout: str, tmp_path: Path) -> None:
    wrong, kind = LIES[lie]
    records = [PAGES[0], wrong, PAGES[1], PAGES[2]]
    pack = {
        "plain": b"".join,
        "a record each": lambda r: zipped(*r),
        "one stream": lambda r: gzip.compress(b"".join(r)),
    }
    name = "a.warc" if layout == "plain" else "a.warc.gz"
    documents, account = read_bytes(tmp_path, pack[layout](records), name, max_record_bytes=100_000)
    assert numbers(documents) == ["0", "1", "2"]
    assert account.damage == {kind: 1}
    begin = len(PAGES[0]) if layout != "a record each" else len(zipped(PAGES[0]))
    named = 0 if lie == "junk" else begin  # what follows the record that is well
    assert account.damage_examples[0].startswith(f"{tmp_path}/{name}, byte {named}: ")


def test_a_large_record_that_nobody_wants_is_no_damage(tmp_path: Path) -> None:
    video = record(http(b"v" * 200_000, "video/mp4"))
    documents, account = read_bytes(tmp_path, zipped(PAGES[0], video, PAGES[1]), max_record_bytes=100_000)
    assert numbers(documents) == ["0", "1"]
    assert not account.damage
    assert account.counts == {"read.video/mp4": 1}


def test_compression_bombs_stay_packed(tmp_path: Path) -> None:
    bomb = gzip.compress(b"<p>" + b"\0" * 100_000_000)
    honest = zipped(record(http(b"<p>" + b"\0" * 100_000_000)))
    inner = zipped(record(http(bomb, extra="Content-Encoding: gzip\r\n")))
    liar = zipped(record(http(b"<p>" + b"\0" * 100_000_000), length=50))
    (tmp_path / "a.warc.gz").write_bytes(zipped(PAGES[0]) + honest + inner + liar + zipped(PAGES[1]))
    with at_most(30_000_000):  # the decompressor gives 4 MB at a time
        documents, account = read(tmp_path, source("warc", tmp_path), max_record_bytes=1_000_000)
    assert numbers(documents) == ["0", "1"]
    assert account.damage == {"record_too_large": 2, "bad_length": 1}


@pytest.mark.parametrize("pack", [lambda one: one, zipped, zstandard.compress])
def test_a_truncated_file_is_told_wherever_it_is_cut(pack: object, tmp_path: Path) -> None:
    assert callable(pack)
    packed = [pack(page) for page in PAGES[:2]]
    name = "a.warc.zst" if pack is zstandard.compress else "a.warc.gz" if pack is zipped else "a.warc"
    content = b"".join(packed)
    for cut in range(len(packed[0]) + 1, len(content)):
        documents, account = read_bytes(tmp_path, content[:cut], name)
        missing_end = name == "a.warc" and cut >= len(content) - 4  # its four line ends are all that is missing
        assert numbers(documents) == (["0", "1"] if missing_end else ["0"]), cut
        assert account.damage.total() == (0 if missing_end else 1), cut
        assert set(account.damage) <= {"truncated", "bad_header", "bad_length", "bad_compression"}, cut


@pytest.mark.parametrize("place", range(12, 200, 17))
def test_damaged_compression_costs_one_record(place: int, tmp_path: Path) -> None:
    packed = [zipped(page) for page in PAGES]
    broken = bytearray(packed[1])
    broken[place] ^= 0xFF
    documents, account = read_bytes(tmp_path, packed[0] + bytes(broken) + packed[2] + packed[3])
    assert numbers(documents) == ["0", "2", "3"]
    assert account.damage == {"bad_compression": 1}


def test_each_of_several_damaged_records_is_counted(tmp_path: Path) -> None:
    packed = [zipped(page) for page in PAGES]
    broken = [one[:-6] + bytes([one[-6] ^ 0xFF]) + one[-5:] for one in packed]  # checksums
    documents, account = read_bytes(tmp_path, broken[0] + broken[1] + packed[2] + broken[3])
    assert numbers(documents) == ["2"]
    assert account.damage == {"bad_compression": 3}


def test_a_plain_file_that_ends_in_a_record(tmp_path: Path) -> None:
    documents, account = read_bytes(tmp_path, b"".join(PAGES)[:-40], "a.warc")
    assert numbers(documents) == ["0", "1", "2"]
    assert account.damage == {"truncated": 1}


def test_a_member_of_a_file_cut_in_the_middle(tmp_path: Path) -> None:
    packed = [zipped(page) for page in PAGES]
    documents, account = read_bytes(tmp_path, packed[0] + packed[1][:60] + packed[2] + packed[3])
    assert numbers(documents) == ["0", "2", "3"]
    assert account.damage.total() == 1


def test_a_file_in_one_compressed_stream(tmp_path: Path) -> None:
    documents, account = read_bytes(tmp_path, gzip.compress(b"".join(PAGES)))
    assert numbers(documents) == ["0", "1", "2", "3"]
    assert [document.offset for document in documents] == [0, len(PAGES[0]), 2 * len(PAGES[0]), 3 * len(PAGES[0])]
    assert not account.damage
    _, account = read_bytes(tmp_path, gzip.compress(b"".join(PAGES))[:-12])
    assert account.damage == {"truncated": 1}


@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (b"", {}),
        (b"no web archive\n" * 50, {"bad_header": 1}),
        (bytes(range(256)) * 20, {"bad_header": 1}),
        (b"\x1f\x8b\x08" + b"x" * 500, {"bad_compression": 1}),
        (b"".join(PAGES).replace(b"\r\n", b"\n"), {"bad_header": 4}),
    ],
)
def test_files_that_are_none(content: bytes, damage: dict[str, int], tmp_path: Path) -> None:
    documents, account = read_bytes(tmp_path, content)
    assert documents == []
    assert account.damage == Counter(damage)


def test_a_record_cut_by_its_crawler_is_kept_and_counted(tmp_path: Path) -> None:
    cut = page_record(1).replace(b"WARC-Type", b"WARC-Truncated: length\r\nWARC-Type")
    documents, account = read_bytes(tmp_path, zipped(cut))
    assert numbers(documents) == ["1"]
    assert account.counts == {"read.warc_truncated": 1}


DAMAGED = {
    "whole": [zipped(page) for page in PAGES],
    "checksum": [zipped(PAGES[0]), zipped(PAGES[1])[:-6] + b"\0" + zipped(PAGES[1])[-5:], *map(zipped, PAGES[2:])],
    "two checksums": [one[:-6] + b"\0" + one[-5:] if i in (1, 2) else one for i, one in enumerate(map(zipped, PAGES))],
    "too long": [zipped(PAGES[0]), zipped(page_record(1, length=9_999)), *map(zipped, PAGES[2:])],
    "too short": [zipped(PAGES[0]), zipped(page_record(1, length=90)), *map(zipped, PAGES[2:])],
    "no length": [zipped(PAGES[0]), zipped(page_record(1, length="many")), *map(zipped, PAGES[2:])],
    "garbage": [zipped(PAGES[0]), b"\x1f\x8b\x08" + bytes(range(200)), *map(zipped, PAGES[1:])],
    "garbage first": [b"no archive", *map(zipped, PAGES)],
    "garbage last": [*map(zipped, PAGES), b"\x1f\x8b\x08" + bytes(range(200))],
    "cut short": [*map(zipped, PAGES[:3]), zipped(PAGES[3])[:-30]],
    "nothing": [b"no archive at all" * 30],
    "one stream": [gzip.compress(b"".join(PAGES), mtime=0)],
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_file_in_parts_is_the_file(kind: str, tmp_path: Path) -> None:
    """Wherever it is cut: within a record, between two, within what is damaged."""
    content = b"".join(DAMAGED[kind])
    whole, account = read_bytes(tmp_path, content)
    for step in (*range(101, 140), 180, 211, 333, len(content) - 1, len(DAMAGED[kind][0])):
        documents, parts = read_bytes(tmp_path, content, input_shard_bytes=step)
        assert documents == whole, step
        assert parts.damage == account.damage, step
        assert parts.damage_examples == account.damage_examples, step


def test_parts_are_cut_without_a_look(tmp_path: Path) -> None:
    for name in ("a.warc.gz", "a.warc.zst", "a.warc"):
        (tmp_path / name).write_bytes(bytes(1000))
        pieces = pieces_of(tmp_path, source("warc", tmp_path / name), input_shard_bytes=300)
        ranges = [(piece.begin, piece.end, piece.size) for piece in pieces]
        cut = [(0, 300, 300), (300, 600, 300), (600, 900, 300), (900, None, 100)]
        assert ranges == (cut if name != "a.warc" else [(0, None, 1000)])
