"""The runner: every benchmark is in its list, one that fails stops no other, one run again replaces its own."""

import dataclasses
import sys
from pathlib import Path

import pytest

from benchmarks import run_all
from benchmarks.catalog import ENTRIES, NOT_COMPARISONS, Entry
from benchmarks.comparison import Comparison
from benchmarks.peer_environment import why_missing
from benchmarks.record import Record, read_records
from benchmarks.run_all import Places, command_of, main, run_entries
from tests.support.ranks import repository

WORKS = """
from benchmarks.comparison import Comparison, write
from pathlib import Path
import sys
write(Path(sys.argv[sys.argv.index("--json") + 1]), [Comparison("a", "b", "s", [1.0], [2.0], "lower")])
"""
FAILS = """
import atexit, sys
print("many lines", file=sys.stderr)
atexit.register(print, "a library says goodbye")
raise OSError("no space left")
"""


def entry(name: str, module: str = "") -> Entry:
    return Entry(name, name, module or f"benchmark_{name}", "what it means", 0.1)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    for name, text in {"works": WORKS, "fails": FAILS, "silent": ""}.items():
        (tmp_path / f"benchmark_{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{repository()}")
    return Places(tmp_path / "records", tmp_path, tmp_path / "no-peers", is_quick=True)


def test_every_module_is_in_the_list_or_is_said_to_compare_nothing() -> None:
    modules = {path.stem for path in (repository() / "benchmarks").glob("*.py")}
    listed = {entry.module.removeprefix("benchmarks.") for entry in ENTRIES}
    assert listed <= modules
    assert listed.isdisjoint(NOT_COMPARISONS)
    assert modules == listed | set(NOT_COMPARISONS)


def test_every_peer_of_the_list_is_installed_by_what_installs_peers() -> None:
    text = "\n".join(path.read_text() for path in (repository() / "benchmarks/peers").glob("requirements*.txt"))
    assert {peer for entry in ENTRIES for peer in entry.peers if peer not in text} == set()


def test_the_default_ends_within_its_time() -> None:
    assert sum(entry.minutes for entry in ENTRIES if not entry.is_long) <= 25
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)


def test_one_that_fails_stops_no_other(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    records = run_entries([entry("fails"), entry("silent"), entry("works")], places)
    assert [record.problem for record in records] == [
        "status 1: OSError: no space left",
        "it ended without a figure",
        "",
    ]
    assert records[2].comparisons[0].ratio == 0.5
    assert "many lines" in (places.records / "fails.log").read_text()
    kept = read_records(places.records)
    assert sorted(kept) == ["fails", "silent", "works"]
    assert kept["works"] == dataclasses.replace(records[2], comparisons=kept["works"].comparisons)
    assert kept["works"].commit
    assert kept["works"].machine["cores"] >= 1
    assert "a / b" in capsys.readouterr().out


def test_one_that_hangs_is_ended(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    (places.work / "benchmark_hangs.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr(run_all, "_limit_seconds", lambda _: 0.5)
    assert run_entries([entry("hangs")], places)[0].problem == "ended after 0.5 s"


def test_one_run_again_replaces_only_its_own(places: Places) -> None:
    other = Record("other", comparisons=[Comparison("x", "y", "s", [3.0], [4.0], "lower")])
    other.write(places.records)
    Record("works", problem="old").write(places.records)
    run_entries([entry("works")], places)
    kept = read_records(places.records)
    assert kept["other"].comparisons[0].ours == [3.0]
    assert kept["works"].problem == ""


def test_without_an_environment_of_peers_ours_runs_alone(places: Places) -> None:
    chosen = {one.name: one for one in ENTRIES}
    assert not [word for word in command_of(chosen["train_step"], places) if "peers" in word]
    assert not [word for word in command_of(chosen["prep_quality"], places) if "peers" in word]
    with_peers = dataclasses.replace(places, peers=Path(sys.executable))
    for name in ("train_step", "prep_quality"):
        words = command_of(chosen[name], with_peers)
        assert words[words.index("--peers") + 1] == sys.executable
        assert words[-1] == "--quick"


def test_peers_that_are_missing_are_named_with_what_installs_them(places: Places) -> None:
    assert why_missing(None, "litgpt") == "no interpreter with litgpt was named or made (make peers)"
    assert "litgpt" in run_all.missing_text(places.peers, {"litgpt"})
    assert "make peers" in run_all.missing_text(places.peers, {"litgpt"})
    assert why_missing(sys.executable, "pytest") == ""
    assert "no-such-peer not installed" in why_missing(sys.executable, "pytest", "no-such-peer")


def test_the_page_is_made_again_from_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Record("start_up", began="2026-03-01", comparisons=[Comparison("a", "b", "s", [1.0], [2.0], "lower")]).write(
        tmp_path / "records"
    )
    target = tmp_path / "page.md"
    assert main(["--from", str(tmp_path / "records"), "--page", str(target)]) == 0
    assert "| a | b | 1.000 | 2.000 |" in target.read_text()
    assert main(["--from", str(tmp_path), "--page", str(target)]) == 2
    assert "no records there; run `make bench` first" in capsys.readouterr().err
