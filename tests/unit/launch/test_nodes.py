"""Who is left out of the next launch, and how a person changes it."""

import json
from pathlib import Path

import pytest

from gptdist.cli.main import main
from gptdist.telemetry.rank_log import Failure, FailureKind
from launch.nodes import Kind, blame, blame_for, blames, excluded
from launch.outcome import Outcome


def note(run: Path, *lines: tuple[str, Kind, int]) -> None:
    for node, kind, step in lines:
        blame(run, node, f"{kind} it was", kind=kind, launch="launch_0001", step=step)


@pytest.mark.parametrize(
    ("lines", "left_out"),
    [
        ([], []),
        ([("a", "lost", 1)], ["a"]),
        ([("a", "preflight", 0), ("b", "excluded", 0)], ["a", "b"]),
        ([("a", "killed", 1)], []),
        ([("a", "killed", 1), ("a", "killed", 1)], ["a"]),
        ([("a", "killed", 1), ("b", "killed", 1), ("a", "killed", 1)], []),
        ([("a", "killed", 1), ("a", "stalled", 9)], ["a"]),
        ([("a", "error", 5), ("a", "error", 5)], []),
        ([("a", "error", 5), ("a", "error", 7)], ["a"]),
        ([("a", "lost", 1), ("a", "forgiven", 0)], []),
        ([("a", "lost", 1), ("a", "forgiven", 0), ("a", "lost", 1)], ["a"]),
        ([("a", "killed", 1), ("a", "forgiven", 0), ("a", "killed", 1)], []),
        ([("a", "lost", 1), ("b", "forgiven", 0)], ["a"]),
    ],
)
def test_who_is_left_out(tmp_path: Path, lines: list[tuple[str, Kind, int]], left_out: list[str]) -> None:
    note(tmp_path, *lines)
    assert list(excluded(tmp_path)) == left_out


def test_the_reason_is_that_of_the_last_time(tmp_path: Path) -> None:
    blame(tmp_path, "a", "rank 3: killed\nby SIGKILL", kind="killed")
    blame(tmp_path, "a", "rank 4: killed", kind="killed")
    assert excluded(tmp_path) == {"a": "2 times in a row: rank 4: killed"}
    assert blames(tmp_path)[0].reason == "rank 3: killed by SIGKILL", "one line"


def failure(node: str, kind: FailureKind, rank: int | None = None) -> Failure:
    return Failure(kind, rank, node, 1.0, 7, "data", f"why\n{node} {kind}")


def test_every_lost_host_is_to_blame_or_else_the_first_that_failed(tmp_path: Path) -> None:
    blame_for(tmp_path, Outcome(1, 7, (failure("a", "killed", 2), failure("b", "error", 3))), "launch_0004")
    blame_for(tmp_path, Outcome(1, 7, (failure("a", "error", 2), failure("b", "lost"), failure("c", "lost"))), "l")
    blame_for(tmp_path, Outcome(2, 7, (failure("d", "refused", 2),)), "l")
    blame_for(tmp_path, Outcome(1, 7), "l")
    found = [(one.node, one.kind, one.reason, one.step) for one in blames(tmp_path)]
    assert found == [
        ("a", "killed", "rank 2: a killed", 7),
        ("b", "lost", "b lost", 7),
        ("c", "lost", "c lost", 7),
    ]
    assert blames(tmp_path)[0].launch == "launch_0004"


def test_a_line_torn_by_a_crash_or_of_another_version_does_not_matter(tmp_path: Path) -> None:
    note(tmp_path, ("a", "lost", 1))
    with (tmp_path / "nodes.jsonl").open("a") as file:
        file.write('{"node": "b"}\n{"time": 1')
    assert list(excluded(tmp_path)) == ["a"]


def test_the_command_shows_and_changes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note(tmp_path, ("a", "lost", 12))
    assert main(["nodes", str(tmp_path)]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.endswith("  a  lost after step 12, launch_0001: lost it was")
    assert last == "excluded: a"
    assert main(["nodes", str(tmp_path), "--exclude", "b", "--reason", "hot"]) == 0
    assert main(["nodes", str(tmp_path), "--forgive", "a", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert shown["excluded"] == {"b": "hot"}
    assert [one["kind"] for one in shown["blames"]] == ["lost", "excluded", "forgiven"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--forgive", "b"], "--forgive: nothing is noted of 'b' in "),
        (["--exclude", "b"], "--reason: say why b is excluded; who reads it later was not there"),
        (["--reason", "hot"], "--reason: goes with --exclude NODE only; leave it out"),
    ],
)
def test_mistakes(words: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note(tmp_path, ("a", "lost", 12))
    before = (tmp_path / "nodes.jsonl").read_bytes()
    assert main(["nodes", str(tmp_path), *words]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"gptdist nodes: error: {problem}")
    assert (tmp_path / "nodes.jsonl").read_bytes() == before
    assert main(["nodes", str(tmp_path / "none")]) == 2
    assert f"{tmp_path}/none: no such folder; name that of a run" in capsys.readouterr().err
