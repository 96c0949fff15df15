"""Why a document is in or out, as a user asks."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_prep.card.explain import MOST_ROWS, explain
from gptdist.cli.main import main
from gptdist.errors import DataError
from tests.unit.data_prep.made_account import make_row, write_account, write_rows


@pytest.fixture
def output_dir(tmp_path: Path) -> Path:
    write_account(tmp_path, shards=2, documents=300)
    return tmp_path


def first_row(output_dir: Path, outcome: str, source: str = "web") -> dict[str, Any]:
    for path in sorted((output_dir / "account").glob(f"{source}-*.parquet")):
        for row in pq.read_table(path).to_pylist():
            if row["outcome"] == outcome:
                return dict(row)
    raise AssertionError(outcome)


def test_a_kept_document(output_dir: Path) -> None:
    row = first_row(output_dir, "kept")
    explanation = explain(output_dir, row["url"])
    assert (explanation.is_exact, explanation.total) == (True, 1)
    assert explanation.as_text().splitlines() == [
        row["url"],
        f"  read from {row['path']}, record {row['record']}, byte {row['offset']:,}",
        "  kept: passed every stage",
        f"  language {row['language']}; {row['text_bytes']:,} bytes of text; {row['tokens']:,} tokens",
    ]


def test_a_rule_with_its_numbers(output_dir: Path) -> None:
    row = first_row(output_dir, "filters.too_short")
    lines = explain(output_dir, row["url"]).as_text().splitlines()
    assert lines[2] == "  dropped by filters.too_short: the text is shorter than filters.min_characters"
    assert lines[3] == "  by its numbers: characters 12, threshold 100"


def test_a_duplicate_names_the_kept_document(output_dir: Path) -> None:
    row = first_row(output_dir, "dedup.near")
    kept = first_row(output_dir, "kept")
    explanation = explain(output_dir, row["url"])
    assert explanation.fates[0].kept_for[0].row["url"] == kept["url"]
    text = explanation.as_text()
    assert f"  instead of it: {kept['url']}\n" in text
    assert "by its numbers" not in text


def test_the_kept_document_may_have_been_dropped_later(output_dir: Path) -> None:
    rows = [make_row(number, url=f"https://x.example/{number}") for number in range(4)]
    removed = {
        0: ("dedup.near", {"kept_shard": 1, "kept_row": 2}),
        1: ("dedup.exact", {"kept_shard": 1, "kept_row": 0}),
        3: ("dedup.exact", {"kept_shard": 99, "kept_row": 0}),
    }
    write_rows(output_dir / "account" / "web-00001.parquet", rows, {2: 3}, removed)
    fate = explain(output_dir, "https://x.example/1").fates[0]
    assert [kept.name for kept in fate.kept_for] == ["https://x.example/0", "https://x.example/2"]
    assert [kept.row["outcome"] for kept in fate.kept_for] == ["dedup.near", "kept"]
    text = explain(output_dir, "https://x.example/3").as_text()
    assert "instead of it: a document that is not in the account" in text


def test_documents_that_point_at_each_other_end(output_dir: Path) -> None:
    rows = [make_row(number, url=f"https://x.example/{number}") for number in range(2)]
    removed = {number: ("dedup.near", {"kept_shard": 1, "kept_row": 1 - number}) for number in range(2)}
    write_rows(output_dir / "account" / "web-00001.parquet", rows, {}, removed)
    assert len(explain(output_dir, "https://x.example/0").fates[0].kept_for) == 10


def test_a_path_and_a_record_of_it(output_dir: Path) -> None:
    assert explain(output_dir, "books/lines.jsonl").total == 300
    (fate,) = explain(output_dir, "books/lines.jsonl:17").fates
    assert (fate.row["record"], fate.name) == (17, "books/lines.jsonl:17")
    with pytest.raises(DataError, match="no document's URL or path is or contains"):
        explain(output_dir, f"books/lines.jsonl:{2**70}")


def test_a_path_of_too_many_records(output_dir: Path) -> None:
    rows = [make_row(number, path="many.jsonl", record=number + 1) for number in range(MOST_ROWS + 5)]
    write_rows(output_dir / "account" / "web-00000.parquet", rows, {}, {})
    explanation = explain(output_dir, "many.jsonl")
    assert (explanation.total, len(explanation.fates)) == (MOST_ROWS + 5, MOST_ROWS)
    assert explanation.as_text().endswith("and 5 more; name one by its URL or as PATH:RECORD")


def test_a_part_of_an_address_lists_what_contains_it(output_dir: Path) -> None:
    explanation = explain(output_dir, "news.example.org/en")
    assert not explanation.is_exact
    assert len(explanation.fates) == 20 < explanation.total
    lines = explanation.as_text().splitlines()
    assert lines[0] == f"no document is called 'news.example.org/en'; {explanation.total} contain it:"
    assert len(lines) == 22
    assert all("news.example.org/en" in line for line in lines[1:21])
    few = explain(output_dir, first_row(output_dir, "kept")["url"][:-1])
    assert few.total >= 1


def test_controls_do_not_reach_the_terminal(output_dir: Path) -> None:
    write_rows(output_dir / "account" / "web-00000.parquet", [make_row(0, url="https://x\x1b[2J\u202e/")], {}, {})
    text = explain(output_dir, "https://x\x1b[2J\u202e/").as_text()
    assert text.startswith("https://x⟨U+001B⟩[2J⟨U+202E⟩/\n")
    with pytest.raises(DataError, match="is or contains '⟨U\\+DCFF⟩'"):
        explain(output_dir, "\udcff")


def test_the_command(output_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prep", "report", str(output_dir)]) == 0
    out = capsys.readouterr().out
    assert out.endswith(f"written to {output_dir}/report.html\n")
    assert "tokenizer bpe with 32,000 ids" in out
    assert (output_dir / "report.html").read_text().startswith("<!doctype html>")
    target = output_dir / "other.html"
    assert main(["prep", "report", str(output_dir), "--html", str(target), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["html"] == str(target)
    assert target.read_bytes() == (output_dir / "report.html").read_bytes()
    assert data["languages"]["en"]["kept"]["documents"] > 0
    assert data["summary"]["name"] == "rivers & bridges"
    assert data["places"][0]["kept"]["documents"] > 0


def test_the_command_explains(output_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = first_row(output_dir, "dedup.exact")["url"]
    assert main(["prep", "report", str(output_dir), "--explain", url]) == 0
    assert "dropped by dedup.exact: the same text stands earlier in the corpus" in capsys.readouterr().out
    assert not (output_dir / "report.html").exists()
    assert main(["prep", "report", str(output_dir), "--explain", url, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["fates"][0]["row"]["outcome"] == "dedup.exact"
    assert data["fates"][0]["kept_for"][0]["row"]["outcome"] == "kept"


def test_what_is_not_there_exits_2(
    output_dir: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prep", "report", str(output_dir), "--explain", "nowhere"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"gptdist prep: error: {output_dir}/account: no document's URL or path is or contains 'nowhere'"
    )
    empty = tmp_path_factory.mktemp("empty")
    for arguments in ([], ["--explain", "x"]):
        assert main(["prep", "report", str(empty), *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "summary.json: missing, so the folder is no finished run" in line
