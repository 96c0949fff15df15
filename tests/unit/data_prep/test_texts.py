"""Texts in columns: the same files as by one document at a time, whatever stands between them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.steps import documents
from data_prep.texts import Texts, TextsBuilder
from tests.unit.data_prep.made_corpus import hashes, make_config, make_texts, run

ODD = (
    "",
    " \n\t",
    "short",
    "\u3000 short \u3000\u3000\u3000",
    "a\0b " * 9,
    "\u00a0\u2003 一二三四五六七八九十 \u00a0",
    "Größe 漢字 \U0001f389 " * 3,
)
LINES = (
    b"",
    b"  ",
    b"{",
    b"[]",
    b'{"no": 1}',
    b'{"text": 7}',
    b'{"text": "a lone \\ud800 surrogate is no text"}',
    b'{"text": "\xff is not UTF-8, not even once"}',
    b'{"text": "the number beside it is none", "n": NaN}',
    b'{"text": "an address that is no string", "url": 3}',
    b'{"text": "an address with half a character", "url": "https://x.example/\\udfff"}',
    b'{"text": "carriage return and line feed"}\r',
    b'{"text": "' + b"x" * 3000 + b'"}',
)


def json_lines(path: Path) -> dict[str, Any]:
    texts = [*make_texts(40), *ODD, *make_texts(5, seed=1)]
    lines = [json.dumps({"text": text, "url": f"https://x.example/{n}"}).encode() for n, text in enumerate(texts)]
    for number, line in enumerate(LINES):
        lines.insert(3 * number, line)
    path.write_bytes(b"\n".join(lines))
    return {"name": "lines", "kind": "jsonl", "paths": [str(path)], "url_key": "url"}


def table(path: Path) -> dict[str, Any]:
    texts = [*make_texts(40, seed=2), *ODD, None, "x" * 3000, *make_texts(5, seed=3)]
    urls = [None if number % 3 else f"https://y.example/{number}" for number in range(len(texts))]
    pq.write_table(pa.table({"text": texts, "url": urls}), path, row_group_size=17)
    return {"name": "table", "kind": "parquet", "paths": [str(path)], "url_key": "url"}


@pytest.mark.parametrize("changes", [{}, {"work_compression": "zstd"}, {"input_shard_bytes": 2500}])
def test_columns_change_nothing(changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = json_lines(tmp_path / "a.jsonl"), table(tmp_path / "b.parquet")
    taken: list[int] = []

    def counted(builder: TextsBuilder) -> Any:
        for texts in flush(builder):
            taken.append(len(texts))
            yield texts

    flush = TextsBuilder.flush
    monkeypatch.setattr(TextsBuilder, "flush", counted)
    common = {"filters": {"min_characters": 10}, "max_record_bytes": 2000, "max_damaged_fraction": 0.9, **changes}
    run(make_config(tmp_path / "columns", *sources, **common))
    assert sum(taken) > 90
    assert len(taken) > 10
    monkeypatch.setattr(documents, "_take_all_texts", lambda config, source: False)
    run(make_config(tmp_path / "documents", *sources, **common))
    found, expected = hashes(tmp_path / "columns"), hashes(tmp_path / "documents")
    summary = json.loads((tmp_path / "columns/account/summary.json").read_bytes())
    assert summary["sources"][0]["damage"]["lone_surrogate"] == 1
    assert {name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)} == set()


@pytest.mark.parametrize(
    "stage",
    [
        {"language": {}},
        {"pii": {}},
        {"quality": {"c4": {}}},
        {"filters": {"max_characters": 50}},
        {"filters": {"min_alphabetic_fraction": 0.5}},
        {"filters": {"max_line_characters": 5000}},
    ],
)
def test_a_stage_that_looks_into_texts_sees_every_one(stage: dict[str, Any], tmp_path: Path) -> None:
    config = make_config(tmp_path, {"name": "a", "kind": "jsonl", "paths": ["a.jsonl"]}, **stage)
    assert not documents._take_all_texts(config, 0)
    assert documents._take_all_texts(make_config(tmp_path, *config.tree()["sources"]), 0)


def test_one_of_many_is_a_document() -> None:
    builder = TextsBuilder("a.jsonl", 1, offsets=True, urls=False)
    assert builder.take("first é", 1, 0, None)
    assert builder.take("second", 2, 17, None)
    assert not builder.take(" ", 3, 20, None)
    (texts,) = builder.flush()
    assert isinstance(texts, Texts)
    assert list(builder.flush()) == []
    document = texts.document(1)
    assert (document.text, document.path, document.record, document.offset) == ("second", "a.jsonl", 2, 17)
    assert texts.text_bytes.tolist() == [8, 6]
    assert texts.digests == texts.document(0).digest + document.digest
