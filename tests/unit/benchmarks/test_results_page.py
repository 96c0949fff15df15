"""The page of results: its tables are well-formed whatever is in them, and say where others are better."""

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.catalog import ENTRIES
from benchmarks.comparison import Comparison
from benchmarks.machine import PAGE_NAME
from benchmarks.record import Record, read_records
from benchmarks.results_page import cell, figure, page
from tests.support.ranks import repository

MACHINE = {"cpu": "EPYC", "cores": 2, "cpu_flags": ["avx2", "avx512f"], "memory_gib": 23.4, "python": "3.11.7"}


def record(name: str, *comparisons: Comparison, **more: Any) -> Record:
    tree = {"command": f"python -m {name}", "began": "2026-03-01T10:00:00+00:00", "seconds": 61.0, "commit": "abc123"}
    return Record(name, **tree | {"machine": MACHINE, "ours": {"torch": "2.13.0"}} | more, comparisons=comparisons)  # type: ignore[arg-type]


def shown(*records: Record) -> str:
    return page({one.name: one for one in records})


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, its head and rule included."""
    lines = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0].splitlines()
    table = [line for line in lines if line.startswith("|")]
    return [[part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


WHY = "not installed (make peers)"
SLOWER = Comparison("restart", "torchrun", "s", [6.0, 4.0, 5.0], [2.0, 2.0, 2.0], "lower")
FASTER = Comparison("help", "torchrun", "s", [0.1], [2.0], "lower")
LEVEL = Comparison("load", "DCP", "s", [1.0, 1.2, 1.3], [1.1, 1.1, 1.1], "lower")
FEWER = Comparison("speed", "litgpt", "tokens/s", [1000.0], [1250.0], "higher", 1.1)
SAME = Comparison("bytes", "DCP", "MB", [976.6], [976.59], "lower")
YARDSTICK = Comparison("rate", "dd", "MB/s", [50.0], [100.0], "higher", 0.8, "yardstick")


def test_a_row_has_medians_ratio_direction_and_target() -> None:
    found = rows(shown(record("restart", SLOWER), record("train_step", FEWER)), "Training speed")
    assert found[2] == [
        *("speed", "litgpt", "1,000", "1,250", "tokens/s", "higher", "0.8000"),
        *("at least 1.1, MISSED", "theirs", ""),
    ]
    found = rows(shown(record("restart", SLOWER)), "From a killed rank to the next step")
    assert found[2][2:8] == ["5.000", "2.000", "s", "lower", "2.500 (2.000 to 3.000)", ""]


def test_where_others_are_better_is_listed_worst_first() -> None:
    text = shown(record("restart", SLOWER, FASTER, YARDSTICK, LEVEL, SAME), record("train_step", FEWER))
    found = rows(text, "Where others are faster or smaller")
    assert [row[0] for row in found[2:]] == ["restart", "speed", "load"]
    assert [row[-1] for row in found[2:]] == ["theirs", "theirs", "level"]
    assert "better in 1 figures, worse in 2, level in 2" in text
    assert "Targets: 0 of 2 reached" in text
    assert [row[0] for row in rows(text, "Targets missed")[2:]] == ["rate", "speed"]


def test_one_without_peers_does_not_hide_their_versions() -> None:
    text = shown(record("start_up", FASTER), record("train_step", FEWER, peers={"litgpt": "0.5.13"}))
    assert dict(row for row in rows(text, "Measured on") if len(row) == 2)["peers' environment"] == "litgpt 0.5.13"


def test_nowhere_better_is_said() -> None:
    assert "In none of the figures that were run." in shown(record("start_up", FASTER))


def test_a_missing_peer_is_a_row_that_says_why() -> None:
    absent = Comparison("speed", "litgpt", "tokens/s", [1000.0], [], "higher", 1.1, missing=WHY)
    text = shown(record("train_step", absent))
    row = rows(text, "Training speed")[2]
    assert row[2:4] == ["1,000", "not run: not installed (make peers)"]
    assert row[6:9] == ["", "at least 1.1", ""]
    assert "for want of the other: 1" in text
    assert "MISSED" not in text


def test_what_failed_and_what_was_left_out_are_named() -> None:
    text = shown(record("checkpoint", problem="status 1: OSError: no space"), record("start_up", FASTER))
    assert "Not run: status 1: OSError: no space" in text
    listed = text.split("Not run to the end: ")[1].splitlines()[0]
    assert listed.startswith("checkpoint, ")
    assert "compress" in listed
    assert "start_up" not in listed
    assert "it is long; `--long` adds it" in text


def test_quick_figures_are_called_none() -> None:
    assert "No figures." in shown(record("start_up", FASTER, is_quick=True))
    assert "No figures." not in shown(record("start_up", FASTER))


def test_another_machine_and_commit_are_seen() -> None:
    text = shown(
        record("start_up", FASTER, load=9.0),
        record("restart", SLOWER, commit="def456", machine=MACHINE | {"cores": 64}, began="2026-03-04T10:00:00+00:00"),
    )
    found = dict(row for row in rows(text, "Measured on") if len(row) == 2)
    assert (found["cores"], found["commit"], found["date"]) == ("2; 64", "abc123; def456", "2026-03-01 to 2026-03-04")
    assert found["cpu flags"] == "avx2 avx512f"
    assert found["peers' environment"] == "none"
    assert found["load before, where it was not quiet"] == "start_up 9.0"


@pytest.mark.parametrize(
    ("text", "said"), [("a | b", r"a \| b"), ("two\nlines", "two lines"), ("<b>", "&lt;b>"), ("a\\|b", r"a\\\|b")]
)
def test_a_cell_cannot_break_its_table(text: str, said: str) -> None:
    assert cell(text) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1234567.8, "1,234,568"),
        (999.6, "1,000"),
        (12.345, "12.35"),
        (0.5, "0.5000"),
        (0.012, "0.01200"),
        (0.0, "0"),
        (123.0, "123.0"),
        (0.00001, "1.000e-05"),
    ],
)
def test_a_figure_has_four_digits(value: float, said: str) -> None:
    assert figure(value) == said


def well_formed(text: str) -> list[str]:
    """Tables whose rows have not as many cells as their head."""
    bad, width = [], 0
    for line in text.splitlines():
        cells = len(re.split(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        if cells and width and cells != width:
            bad.append(line)
        width = cells
    return bad


def test_rows_are_well_formed() -> None:
    odd = Comparison("a | b", "c\nd", "x|y", [1.0], [2.0], "lower", note="e | f\ng")
    text = shown(*(record(entry.name, odd, SLOWER, YARDSTICK, problem="a | b\nc") for entry in ENTRIES))
    assert well_formed(text) == []
    assert well_formed("| a | b |\n| --- |\n") == ["| --- |"]
    assert all(f"## {entry.title}\n" in text for entry in ENTRIES)


def test_the_kept_page_is_well_formed() -> None:
    kept = repository() / "benchmarks" / "RESULTS.md"
    text = kept.read_text() if kept.exists() else page({})
    assert well_formed(text) == []
    assert all(f"## {entry.title}\n" in text for entry in ENTRIES)
    assert "--quick" not in text


def test_the_page_is_the_same_from_what_was_kept(tmp_path: Path) -> None:
    made = [record("restart", SLOWER, YARDSTICK), record("checkpoint", problem="no space")]
    for one in made:
        one.write(tmp_path)
    assert page(read_records(tmp_path)) == shown(*made)


def _cells(path: str) -> list[list[str]]:
    lines = (repository() / path).read_text().splitlines()
    return [[part.strip() for part in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


def test_the_figures_of_the_readme_are_those_of_the_page() -> None:
    """Of each row: what, beside, ours / theirs, and which values are better."""
    measured = {(row[0], row[1]): (row[6].partition(" ")[0], row[5]) for row in _cells(PAGE_NAME) if len(row) == 10}
    told = [row for row in _cells("README.md") if len(row) == 4 and row[0] not in ("what", "---")]
    assert len(told) > 10
    assert {(what, beside): (ratio, better) for what, beside, ratio, better in told}.items() <= measured.items()
