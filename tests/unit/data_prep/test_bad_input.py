"""Damaged input: counted by kind, named with file and place, and read on behind; memory stays bounded."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from data_prep.account import Account
from data_prep.document import Document
from data_prep.readers.accept import accept_text
from data_prep.readers.lines import split_lines
from data_prep.readers.reader import open_readers
from gptdist.errors import DataError
from tests.unit.data_prep.made_corpus import files_source, make_config, make_texts, write_texts
from tests.unit.data_prep.made_sources import at_most, read, source

GOOD = b'{"text": "good"}\n'


@pytest.mark.parametrize(
    ("line", "kind", "detail"),
    [
        (b'{"text": "a"', "not_json", r"not JSON ("),
        (b"[" * 100_000, "not_json", "not JSON ("),
        (b'{"n": ' + b"9" * 5000 + b"}", "not_json", "not JSON ("),
        (b'{"txt": "a", "b": 1}', "no_text", "no string under 'text' (keys: b, txt); set text_key, or mend the line"),
        (b'{"text": 7}', "no_text", "no string under 'text' (keys: text)"),
        (b'{"text": null}', "no_text", "no string under 'text' (keys: text)"),
        (b'["text"]', "no_text", "no string under 'text' (keys: none, it is a list)"),
        (b"null", "no_text", "no string under 'text' (keys: none, it is a NoneType)"),
        (b'{"text": "caf\xe9"}', "not_utf8", "not UTF-8 at byte 13 of the line; mend or remove the line"),
        (b'{"text": "x\\ud800"}', "lone_surrogate", "it has a lone surrogate (U+D800 at character 1); mend or remove"),
        (b'{"text": "' + b"x" * 2000 + b'"}', "record_too_large", "line above max_record_bytes 1000; cut it"),
    ],
)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_bad_line_is_counted_and_named(line: bytes, kind: str, detail: str, ending: str, tmp_path: Path) -> None:
    limit = 1000 if kind == "record_too_large" else 10**6
    content = GOOD + line + b"\n" + GOOD
    (tmp_path / f"a.jsonl{ending}").write_bytes(gzip.compress(content) if ending else content)
    documents, account = read(tmp_path, source("jsonl", tmp_path), max_record_bytes=limit)
    assert [document.record for document in documents] == [1, 3]
    assert documents[1].offset == len(GOOD) + len(line) + 1
    assert account.damage == {kind: 1}
    assert account.damage_examples[0].startswith(f"{tmp_path}/a.jsonl{ending}:2, byte {len(GOOD)}: ")
    assert detail in account.damage_examples[0]


def test_a_wrong_key_is_an_error_that_says_so(tmp_path: Path) -> None:
    """Every line lacks it: no damage, but a mistake in the config."""
    (tmp_path / "a.jsonl").write_bytes(b'{"content": "x", "id": 1}\n' * 50)
    (reader,) = open_readers(make_config(tmp_path / "out", source("jsonl", tmp_path)))
    account = Account("sources[0] 'jsonl'", 0.01)
    assert list(reader.documents(reader.pieces(), account)) == []
    with pytest.raises(
        DataError, match=r"50 of 50 records .* no string under 'text' \(keys: content, id\); set text_key"
    ):
        account.check_damage()


def test_what_json_knows_and_the_fast_parser_does_not(tmp_path: Path) -> None:
    lines = b'{"text": "a", "score": NaN}\n{"text": "b", "other": "\\ud800"}\n{"text": "c", "url": "x\\udc00"}\n'
    (tmp_path / "a.jsonl").write_bytes(lines)
    documents, account = read(tmp_path, source("jsonl", tmp_path, url_key="url"))
    assert [document.text for document in documents] == ["a", "b", "c"]
    assert documents[2].url == "x\\udc00"
    assert not account.damage


def test_empty_texts_and_nul_characters(tmp_path: Path) -> None:
    texts = ["", " \n\t", "\u3000", "a\0b\0", "\0"]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    documents, account = read(tmp_path, source("jsonl", tmp_path))
    assert [document.text for document in documents] == ["ab"]
    assert [(row.record, row.outcome) for row in account.rows] == [(n, "read.empty") for n in (1, 2, 3, 5)]
    assert account.counts == {"read.nul": 3}


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".zst", zstandard.compress)])
def test_a_truncated_file_gives_what_is_whole(ending: str, pack: Any, tmp_path: Path) -> None:
    texts = [text * 40 for text in make_texts(1500)]
    packed = pack("\n".join(json.dumps({"text": text}) for text in texts).encode())
    (tmp_path / f"a.jsonl{ending}").write_bytes(packed[: len(packed) * 3 // 4])
    (tmp_path / f"b.jsonl{ending}").write_bytes(pack(GOOD))
    documents, account = read(tmp_path, source("jsonl", tmp_path))
    count = len(documents) - 1
    assert 600 < count < 1500
    assert [document.text for document in documents] == [*texts[:count], "good"]
    assert account.damage == {"truncated": 1}
    offset = documents[count - 1].offset
    assert account.damage_examples[0].startswith(
        f"{tmp_path}/a.jsonl{ending}, after line {count}, byte {offset} of its content: not read any further (Truncated"
    )


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".zst", zstandard.compress)])
def test_damaged_compression(ending: str, pack: Any, tmp_path: Path) -> None:
    packed = bytearray(pack(GOOD * 10))
    packed[1:20] = b"\xff" * 19
    (tmp_path / f"a.jsonl{ending}").write_bytes(bytes(packed))
    (tmp_path / f"b.jsonl{ending}").write_bytes(pack(GOOD))
    documents, account = read(tmp_path, source("jsonl", tmp_path))
    assert [document.path for document in documents] == [f"{tmp_path}/b.jsonl{ending}"]
    assert account.damage == {"bad_compression": 1}


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_a_huge_line_is_passed_over_in_bounded_memory(ending: str, tmp_path: Path) -> None:
    """100 MB in one line; the compressed ones are bombs as well, of 1,000:1 and more."""
    size = 100_000_000
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[ending]
    with (tmp_path / f"a.jsonl{ending}").open("wb") as file:
        file.write(pack(GOOD + b'{"text": "' + b"x" * size + b'"}\n' + GOOD))
    config = make_config(tmp_path / "out", source("jsonl", tmp_path), max_record_bytes=1_000_000)
    (reader,) = open_readers(config)
    account, pieces = Account("w", 0.99), reader.pieces()
    with at_most(5_000_000):
        documents = list(reader.documents(pieces, account))
    assert [(document.record, document.offset) for document in documents] == [(1, 0), (3, len(GOOD) + size + 13)]
    assert account.damage == {"record_too_large": 1}


@pytest.mark.parametrize("limit", [3, 5, 100])
def test_lines_do_not_depend_on_blocks(limit: int) -> None:
    content = b"\nab\n\nabcdef\n\nabcde\nxy"
    expected = list(split_lines(iter([content]), 7, limit))
    assert [offset for offset, _ in expected] == [7, 8, 11, 12, 19, 20, 26]
    assert [line if len(line) <= limit else None for line in content.split(b"\n")] == [line for _, line in expected]
    for size in range(1, 12):
        blocks = [content[begin : begin + size] for begin in range(0, len(content), size)]
        assert list(split_lines(iter(blocks), 7, limit)) == expected


def test_a_text_file_that_is_not_utf8_and_one_too_large(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "in", ["good", "x" * 101])
    (folder / "latin\n.txt").write_bytes("caf\xe9".encode("latin-1"))
    documents, account = read(tmp_path, files_source(folder), max_record_bytes=100)
    assert [document.text for document in documents] == ["good"]
    assert account.damage == {"not_utf8": 1, "record_too_large": 1}
    assert account.damage_examples == [
        f"{folder}/0001.txt: 101 bytes, above max_record_bytes 100; raise it, or cut the record",
        f"{folder}/latin\\x0a.txt: not UTF-8 at byte 3; convert it, or take it out",
    ]


def test_files_that_are_no_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["good"]}), tmp_path / "c.parquet")
    (tmp_path / "a.parquet").write_bytes(b"")
    (tmp_path / "b.parquet").write_bytes((tmp_path / "c.parquet").read_bytes()[:-20])
    documents, account = read(tmp_path, source("parquet", tmp_path))
    assert [document.text for document in documents] == ["good"]
    assert account.damage == {"not_parquet": 2}
    assert account.damage_examples[0].startswith(f"{tmp_path}/a.parquet: no Parquet file (")


def test_a_damaged_row_group_costs_itself_only(tmp_path: Path) -> None:
    texts = make_texts(30)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": texts}), path, row_group_size=10, compression="gzip", use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 2
    content[middle : middle + 40] = b"\xff" * 40
    path.write_bytes(bytes(content))
    documents, account = read(tmp_path, source("parquet", tmp_path))
    assert [document.record for document in documents] == [*range(10), *range(20, 30)]
    assert account.damage == {"bad_row_group": 1}
    assert account.damage_examples[0].startswith(f"{path}, row 10: row group 1 not read any further (")


def test_rows_without_text_of_another_encoding_and_too_large(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"caf\xe9", b"x" * 200, None, b" ", b"nul\0"], pa.binary())
    table = pa.table({"text": pa.Array.from_buffers(pa.string(), 6, raw.buffers())})  # strings nobody checked
    pq.write_table(table, tmp_path / "a.parquet")
    documents, account = read(tmp_path, source("parquet", tmp_path), max_record_bytes=100)
    assert [(document.record, document.text) for document in documents] == [(0, "good"), (5, "nul")]
    assert account.damage == {"not_utf8": 1, "record_too_large": 1, "no_text": 1}
    assert account.damage_examples[0] == f"{tmp_path}/a.parquet, row 1: not UTF-8 at byte 3; convert it, or take it out"
    assert [row.outcome for row in account.rows] == ["read.empty"]


def test_too_much_damage_stops_the_shard_early(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"no json\n" * 5000)
    (reader,) = open_readers(make_config(tmp_path / "out", source("jsonl", tmp_path)))
    account = Account("sources[0] 'jsonl'", 0.01)
    with pytest.raises(
        DataError, match=r"1000 of 1000 records cannot be read \(1000 not_json\).*a\.jsonl:1, byte 0: not JSON"
    ):
        list(account.reading(reader.documents(reader.pieces(), account)))


def test_a_text_without_a_place_in_unicode() -> None:
    account = Account("w", 0.99)
    assert accept_text("a\udcff", Document("", "p"), "p:1", account) is None
    assert account.damage_examples == [
        "p:1: no text, it has a lone surrogate (U+DCFF at character 1); mend or remove it"
    ]
