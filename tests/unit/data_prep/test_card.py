"""The page that shows an account, and the table at the end of a run."""

import json
import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from data_prep.card.card import page, read_view, write_card
from data_prep.card.figures import Figures
from data_prep.card.folder import AccountFolder
from data_prep.card.markup import Html, element, escaped, share, size, visible
from data_prep.card.rows import rows_file_name
from data_prep.card.svg import round_values
from data_prep.report import report
from gptdist.errors import DataError
from tests.unit.data_prep.made_account import all_rows, make_row, read_rows, write_account, write_rows

VOID = frozenset({"meta", "wbr"})
HOSTILE = (
    "<script>alert(1)</script> \"' onload=x \u202eevil\u2066 \x1b[2J\x00\x07 &lt; \ud800 </style><img src=//x.example>"
)


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_account(folder)
    return folder


@pytest.fixture(scope="module")
def rows(output_dir: Path) -> list[dict[str, Any]]:
    return all_rows(output_dir)


# The folder


def test_what_is_no_finished_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"summary\.json: missing, so the folder is no finished run; finish it with"):
        AccountFolder(tmp_path)
    write_account(tmp_path, shards=1, documents=20)
    summary = tmp_path / "account" / "summary.json"
    content = summary.read_bytes()
    summary.write_bytes(content[:-5])
    with pytest.raises(DataError, match=r"summary\.json: not JSON \(.*\); prepare the data again"):
        AccountFolder(tmp_path)
    summary.write_text("[]")
    with pytest.raises(DataError, match="has no 'sources', so it is no account of gptdist"):
        AccountFolder(tmp_path)
    summary.unlink()
    summary.mkdir()
    with pytest.raises(DataError, match=r"summary\.json: cannot be read \(Is a directory\); restore it"):
        AccountFolder(tmp_path)


def test_rows_that_are_missing_or_damaged(tmp_path: Path) -> None:
    write_account(tmp_path, shards=2, documents=200)
    path = tmp_path / "account" / "web-00001.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"web-00001\.parquet: cannot be read \(.*\); restore it, or remove the output"):
        write_card(tmp_path, tmp_path / "card.html")
    assert not (tmp_path / "card.html").exists()
    path.unlink()
    with pytest.raises(DataError, match=r"web-00001\.parquet: missing; restore it, or prepare the data again"):
        AccountFolder(tmp_path)


# The page


class Reader(HTMLParser):
    """Collects what a browser would see of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str | None]:
        return [value for _, attribute, value in self.attributes if attribute == name]


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(output_dir: Path, tmp_path: Path) -> None:
    write_card(output_dir, tmp_path / "card.html")
    text = (tmp_path / "card.html").read_text()
    reader = Reader(text)
    identities = reader.values("id")
    assert len(identities) == len(set(identities))
    links = reader.values("href")
    assert len(links) == 12
    assert all(link and link[0] == "#" and link[1:] in identities for link in links)
    assert not {"script", "link", "img", "iframe", "object"} & set(reader.tags)
    assert not re.search(r"url\(|@import|src=", text)
    assert "Content-Security-Policy" in text
    pictures = [value for tag, name, value in reader.attributes if tag == "svg" and name == "aria-labelledby"]
    assert len(pictures) == 5
    assert all(set((value or "").split()) <= set(identities) for value in pictures)
    hidden = [value for tag, name, value in reader.attributes if tag == "svg" and name == "aria-hidden"]
    assert len(pictures) + len(hidden) == reader.tags["svg"]
    write_card(output_dir, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == text.encode()


def test_the_page_says_what_the_account_holds(output_dir: Path, rows: list[dict[str, Any]]) -> None:
    view = read_view(output_dir)
    text = Reader(page(view)).text
    kept = [row for row in rows if row["outcome"] == "kept"]
    for number in (len(rows), len(kept), sum(row["tokens"] for row in kept)):
        assert f"{number:,}" in text
    outcomes = {row["outcome"] for row in rows} - {"kept"}
    assert len(outcomes) == 12
    assert all(outcome in text for outcome in outcomes)
    for words in (
        "Common Crawl terms of use",
        "not stated",
        "rivers.example",
        "那年春天",
        "ip address",
        "32,000",
        "was replaced: 16.",
        "too little to be dropped: 8.",
    ):
        assert words in text
    assert "Gopher quality: mean word length above its maximum" in text
    assert "segment-2/part.warc.gz, byte 9000: ends inside a record" in text
    assert "value 0.4123, threshold 0.3" in text
    assert "gptdist data verify" not in text
    assert "2 \u2013 3" in text


def test_the_funnel_has_no_leak(output_dir: Path, rows: list[dict[str, Any]]) -> None:
    flows = read_view(output_dir).flows
    stages = ["read", "extract", "language", "filters", "quality", "decontaminate", "pii", "dedup"]
    assert [flow.stage for flow in flows] == stages
    assert flows[0].documents_in == len(rows)
    for before, after in pairwise(flows):
        assert before.documents_out == after.documents_in
    for flow in flows:
        assert flow.documents_in - flow.documents_out == sum(tally.documents for tally in flow.rules.values())
    assert flows[-1].documents_out == sum(row["outcome"] == "kept" for row in rows)
    assert flows[-1].bytes_out == sum(row["text_bytes"] for row in rows if row["outcome"] == "kept")


def test_a_reader_s_drops_are_in_the_funnel(tmp_path: Path) -> None:
    write_account(tmp_path, shards=1, documents=50)
    path = tmp_path / "account" / "web-00000.parquet"
    write_rows(path, [*read_rows(path), make_row(None, outcome="read.empty"), make_row(None, outcome="x.y")], {}, {})
    flows = {flow.stage: flow for flow in read_view(tmp_path).flows}
    assert flows["read"].documents_in == flows["read"].documents_out + 1
    assert "x.y" in flows["quality"].rules


def test_rows_that_disagree_with_the_shards_are_named(tmp_path: Path) -> None:
    summary = write_account(tmp_path, shards=1, documents=50)
    summary["sources"][0]["splits"]["train"]["documents"] += 1
    (tmp_path / "account" / "summary.json").write_text(json.dumps(summary))
    assert "run 'gptdist data verify'" in Reader(page(read_view(tmp_path))).text


def test_packing_is_told_apart(tmp_path: Path) -> None:
    summary = write_account(tmp_path, shards=1, documents=50)
    split = summary["sources"][0]["splits"]["train"]
    counts = {"documents": split["documents"], "padding_tokens": 123, "documents_cut": 4, "documents_cut_without": 31}
    counts |= {"tokens_cut": 555, "tokens_cut_without": 7777}
    packing = {"method": "best_fit", "seq_length": 2048, "splits": {"train": counts}}
    summary["packing"] = {"web": packing, "books": None}
    split["documents"] += 40  # pieces
    split["tokens"] += 123
    (tmp_path / "account" / "summary.json").write_text(json.dumps(summary))
    reader = Reader(page(read_view(tmp_path)))
    assert "gptdist data verify" not in reader.text
    for number in ("2,048", "555", "7,777", "123"):
        assert number in reader.text
    assert "a.jsonl: 4, 81" in reader.text  # samples too short to be looked for
    assert "40,000" in reader.text
    lines = report(summary).splitlines()
    assert lines[5].split()[2] == str(split["documents"] - 40)
    assert lines[-3] == "packing: 4 documents cut, 31 without it; 123 tokens of padding, not counted above"


def test_hostile_text_is_shown_and_does_nothing(tmp_path: Path) -> None:
    summary = write_account(tmp_path, shards=1, documents=60)
    summary["name"] = HOSTILE
    source = summary["sources"][0]
    source.update(licence=HOSTILE, paths=[HOSTILE], damage={HOSTILE: 1}, damage_examples=[HOSTILE])
    source["counts"] = {f"pii.{HOSTILE}": 1, f"decontaminate.{HOSTILE}": 2, HOSTILE: 3}
    sample = {"path": HOSTILE, "record": 1, "url": HOSTILE, "text": HOSTILE, "language": HOSTILE}
    source["samples"] = {
        "kept": [[1, {**sample, "numbers": {HOSTILE: HOSTILE}}]],
        HOSTILE: [[1, {**sample, "numbers": {}}]],
    }
    summary["config"] = summary["tokenizer"] = {HOSTILE: HOSTILE}
    summary["evaluation"][0]["label"] = HOSTILE
    (tmp_path / "account" / "summary.json").write_text(json.dumps(summary))
    numbers = json.dumps({"evaluation": HOSTILE})
    rows = [
        make_row(0, url=HOSTILE, path=HOSTILE, language=HOSTILE.encode("utf-8", "replace").decode()),
        make_row(None, url="https://<b>x</b>/", outcome="decontaminate.overlap", numbers=numbers),
        make_row(None, url=HOSTILE, outcome="c4.<script>", numbers='{"kept_shard": 0, "kept_row": 0}'),
    ]
    write_rows(tmp_path / "account" / "web-00000.parquet", rows, {0: 5000}, {})
    text = page(read_view(tmp_path))
    reader = Reader(text)
    text.encode()
    assert not {"script", "img", "b"} & set(reader.tags)
    assert reader.tags["style"] == 1
    assert not [name for _, name, _ in reader.attributes if name.startswith("on")]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e\u2066]", text)
    assert (
        reader.text.count(
            "<script>alert(1)</script> \"' onload=x ⟨U+202E⟩evil⟨U+2066⟩ ⟨U+001B⟩[2J⟨U+0000⟩⟨U+0007⟩ &lt;"
        )
        > 12
    )


def test_a_run_that_kept_and_counted_nothing(tmp_path: Path) -> None:
    summary = write_account(tmp_path, shards=1, documents=0)
    for source in summary["sources"]:
        source.update(counts={}, damage={}, damage_examples=[], passages={}, splits={})
        write_rows(tmp_path / "account" / rows_file_name(source["name"], source["shards"][0]), [], {}, {})
    summary.update(near_clusters=None, tokenizer=None, seconds=None)
    (tmp_path / "account" / "summary.json").write_text(json.dumps(summary))
    text = Reader(page(read_view(tmp_path))).text
    for words in ("No duplicates were dropped", "Every record could be read", "has no section pii", "nothing to count"):
        assert words in text
    assert "No language has 1,000 tokens" in text
    assert "has no section decontaminate" in text


def test_a_page_that_cannot_be_written(output_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no/card\.html: cannot be written \(No such file .*\); name another file"):
        write_card(output_dir, tmp_path / "no" / "card.html")


def test_many_languages_and_paths_are_cut_short(tmp_path: Path) -> None:
    summary = write_account(tmp_path, shards=1, documents=20)
    summary["sources"][0]["paths"] = [f"p{number}" for number in range(9)]
    (tmp_path / "account" / "summary.json").write_text(json.dumps(summary))
    rows = [make_row(number, language=f"l{number:02d}") for number in range(60)]
    write_rows(tmp_path / "account" / "web-00000.parquet", rows, dict.fromkeys(range(60), 3), {})
    text = Reader(page(read_view(tmp_path))).text
    assert re.search(r"\d+ others", text)
    assert "and 4 more" in text


def test_figures_of_nothing() -> None:
    assert Figures().places == []


# Words and numbers


def test_numbers_in_words() -> None:
    assert [size(number) for number in (0, 999, 1000, 999_600, 12_345, 2.5e9, 3e12, 4.2e15)] == [
        "0 B",
        "999 B",
        "1.00 kB",
        "1.00 MB",
        "12.3 kB",
        "2.50 GB",
        "3.00 TB",
        "4,200 TB",
    ]
    assert [share(*parts) for parts in ((1, 0), (0, 5), (1, 3), (1, 20), (1, 10**6))] == [
        "\u2013",
        "0.00 %",
        "33.3 %",
        "5.00 %",
        "< 0.01 %",
    ]
    assert round_values(7) == [0, 2, 4, 6]
    assert round_values(1) == [0, 1]
    assert round_values(350) == [0, 100, 200, 300]


def test_markup_is_escaped_unless_it_is_ours() -> None:
    assert escaped("<&\"'>") == "&lt;&amp;&quot;&#x27;&gt;"
    assert escaped(Html("<b>")) == "<b>"
    assert element("a", "<", element("b"), class_='"', title=None) == '<a class="&quot;">&lt;<b></b></a>'
    assert visible("a\tb\nc\rd\x9fe\u200f\U000e0041") == "a\tb\nc⟨U+000D⟩d⟨U+009F⟩e\u200f⟨U+E0041⟩"


def test_the_report_after_a_run(output_dir: Path) -> None:
    summary = json.loads((output_dir / "account" / "summary.json").read_bytes())
    lines = report(summary).splitlines()
    assert lines[0].split("  ")[0] == "source"
    web, split = summary["sources"][0], summary["sources"][0]["splits"]["train"]
    assert re.match(
        rf"web +1,800 +3 +180\.00 +60 extract, .*gopher_quality, .*45 dedup +{split['documents']:,}", lines[1]
    )
    assert f"{split['tokens']:,}" in lines[5]
    assert lines[5].endswith("  2")
    assert lines[-1].endswith("tokens; tokenizer bpe with 32,000 ids, encoded by gigatoken")
    assert lines[-2] == (
        "decontamination: 901 samples of 2 evaluation sets; 2 too short to be looked for (first: a.jsonl:4)"
    )
    split["shards"] = [{"name": "train-00000"}]
    web["passages"] = {}
    summary["tokenizer"]["engines"] = {"gigatoken": 2, "reference": 1}
    assert report(summary).endswith("32,000 ids, input shards encoded by gigatoken: 2, reference: 1")
    del summary["tokenizer"]
    lines = report(summary).splitlines()
    assert "none" in lines[1]
    assert lines[5].endswith("  1")
    assert lines[-1].endswith(" tokens")
