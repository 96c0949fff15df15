"""Repeated lines and paragraphs: the first occurrence stays, as a dict says, however the corpus is cut."""

import random
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from data_prep import kept_file
from data_prep.dedup.cutting import text_bytes
from data_prep.dedup.removals import removal_outcomes
from data_prep.dedup.units import units_of, xxh64
from data_prep.steps.dedup import dedup_steps
from data_prep.steps.exact import Exact, ExactRecords
from data_prep.steps.lines import LineCuts, LineRanges, LineRecords
from tests.unit.data_prep.dedup_work import all_removals, cut_into, make_dedup_work, run_steps, surviving_texts

ASCII_SPACE = " \t\n\v\f\r"


def corpus(count: int, *, seed: int = 3) -> list[str]:
    """Documents of lines of which many are drawn from a few, in several scripts, with blank lines between some."""
    choose = random.Random(seed)
    common = [
        f"Cookie notice {number}: \u540c\u610f \u0441\u043e\u0433\u043b\u0430\u0441\u0438\u0435" for number in range(12)
    ]
    texts = []
    for number in range(count):
        lines = []
        for line in range(choose.randrange(1, 9)):
            if choose.random() < 0.5:
                lines.append(choose.choice(["", "  ", "\t"]) + choose.choice(common) + choose.choice(["", " ", "\r"]))
            else:
                lines.append(choose.choice([f"line {line} of document {number} is its own", "short", "", " \t"]))
        texts.append("\n".join(lines) + choose.choice(["", "\n", "\n\n"]))
    return texts


def units_by_hand(text: str, unit: str) -> list[tuple[int, int, str]]:
    """Begin and end of what goes with each unit, and its content: other code than ours, for the comparison."""
    lines = [(m.start(), m.group()) for m in re.finditer(r"[^\n]*(?:\n|$)", text) if m.group()]
    found: list[list[object]] = []
    blank = True
    for start, line in lines:
        if not line.strip(ASCII_SPACE):
            blank = True
        elif blank or unit == "line":
            found.append([start, line])
            blank = False
        else:
            found[-1][1] = str(found[-1][1]) + line
    begins = [0 if number == 0 else int(str(start)) for number, (start, _) in enumerate(found)]
    ends = [*begins[1:], len(text)] if found else []
    return [(b, e, str(c).strip(ASCII_SPACE)) for b, e, (_, c) in zip(begins, ends, found, strict=True)]


def deduplicated(texts: list[str], unit: str, least: int, least_left: int) -> list[str | None]:
    """What has to come out, by a set of strings; ``None`` is a document that goes."""
    seen: set[str] = set()
    results: list[str | None] = []
    for text in texts:
        if text in texts[: len(results)]:
            results.append(None)
            continue
        units = units_by_hand(text, unit)
        goes = []
        for _, _, content in units:
            long_enough = len(content) >= least
            goes.append(long_enough and content in seen)
            if long_enough:
                seen.add(content)
        if not any(goes):
            results.append(text)
            continue
        kept = [(text[b:e], content) for (b, e, content), gone in zip(units, goes, strict=True) if not gone]
        left = "".join(piece for piece, _ in kept)
        tail = text[len(text.rstrip(ASCII_SPACE)) :]
        if goes[-1]:
            left = left.rstrip(ASCII_SPACE) + tail
        results.append(left if len(left) >= least_left else None)
    return results


@pytest.mark.parametrize("unit", ["line", "paragraph"])
@pytest.mark.parametrize("shards", [1, 5])
@pytest.mark.parametrize("units_per_range", [7, 1 << 22])
def test_what_stands_earlier_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str, shards: int, units_per_range: int
) -> None:
    monkeypatch.setattr(kept_file, "_BATCH_DOCUMENTS", 7)  # or no shard has two batches
    texts = corpus(100) + corpus(20) + corpus(60, seed=9)
    cut = cut_into(texts, shards)
    section = {"unit": unit, "min_characters": 8, "min_document_characters": 40}
    work = make_dedup_work(tmp_path / "work", cut, {"lines": section})
    run_steps(work, ExactRecords(), Exact(), LineRecords(), LineRanges(units_per_range=units_per_range), LineCuts())
    places = [(shard, row) for shard, members in enumerate(cut) for row in range(len(members))]
    expected = dict(zip(places, deduplicated(texts, unit, 8, 40), strict=True))
    assert surviving_texts(work) == {place: text for place, text in expected.items() if text is not None}
    gone = {(s, row): rule for s in range(shards) for row, (rule, _) in removal_outcomes(work, s).items()}
    assert set(gone) == {place for place, text in expected.items() if text is None}
    assert set(gone.values()) == {"exact", "lines"}
    assert sum(work.marker("line_cuts", s)["documents_dropped"] for s in range(shards)) == (
        sum(rule == "lines" for rule in gone.values())
    )
    if units_per_range == 7:
        assert work.marker("line_ranges", 0)["tasks"] > 10
    originals = dict(zip(places, texts, strict=True))
    removals = all_removals(work)
    for (shard, row), text in surviving_texts(work).items():
        assert removals[shard].text_of(row, originals[shard, row]) == text


def test_a_document_that_loses_too_much_says_what_was_left(tmp_path: Path) -> None:
    notice = "We use cookies to give you the best experience on this site."
    texts = [f"{notice}\n\nA first article that is long enough to stay here.", f"Head \u00e9\n\n{notice}\n"]
    work = make_dedup_work(tmp_path / "work", [texts], {"lines": {"min_document_characters": 20}})
    run_steps(work, *dedup_steps(work.config))
    assert surviving_texts(work) == {(0, 0): texts[0]}
    assert removal_outcomes(work, 0) == {1: ("lines", {"characters_left": 7})}
    marker = work.marker("line_cuts", 0)
    assert (marker["documents_cut"], marker["documents_dropped"], marker["units_cut"]) == (0, 1, 1)


def test_a_document_without_cuts_may_be_shorter_than_the_least(tmp_path: Path) -> None:
    work = make_dedup_work(tmp_path / "work", [["tiny", "small"]], {"lines": {}})
    run_steps(work, *dedup_steps(work.config))
    assert surviving_texts(work) == {(0, 0): "tiny", (0, 1): "small"}


def test_the_hash_is_xxh64() -> None:
    content = random.Random(1).randbytes(300)
    data = np.frombuffer(content, dtype=np.uint8)
    for size in (*range(70), 255):
        for begin in (0, 3, 17):
            assert int(xxh64(data, begin, begin + size)) == xxhash.xxh64_intdigest(content[begin : begin + size])


def test_units_of_a_batch_are_found_where_they_are() -> None:
    texts = ["", "\n\n", " a \nb\n\n c", "\u540c\u610f  \n", "x"]
    for paragraphs, contents in (
        (False, ["a", "b", "c", "\u540c\u610f", "x"]),
        (True, ["a \nb", "c", "\u540c\u610f", "x"]),
    ):
        offsets, data = text_bytes(pa.array(texts, pa.large_string()))
        units = units_of(offsets, data, paragraphs=paragraphs)
        spans = zip(units.documents, units.content_begins, units.content_ends, strict=True)
        assert [texts[document].encode()[begin:end].decode() for document, begin, end in spans] == contents
        assert units.characters.tolist() == [len(content) for content in contents]
