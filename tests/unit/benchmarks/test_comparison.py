"""A comparison's ratio, its direction, its target, and how it is written and read."""

import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.comparison import Comparison, by_turns, merged, read, write


def beside(ours: list[float], theirs: list[float], better: Any = "lower", **more: Any) -> Comparison:
    return Comparison("save", "dd", "s", ours, theirs, better, **more)


def test_the_ratio_is_the_median_of_the_rounds_ratios() -> None:
    one = beside([1.0, 9.0, 4.0], [2.0, 3.0, 4.0])
    assert one.ratios == [0.5, 3.0, 1.0]
    assert one.ratio == 1.0  # of the medians it would be 4 / 3


def test_without_pairs_it_is_that_of_the_medians() -> None:
    assert beside([6.0, 2.0, 4.0], [1.0, 3.0]).ratios == [2.0]


@pytest.mark.parametrize(
    ("ratio", "better", "target", "is_reached"),
    [
        (1.2, "lower", 1.2, True),
        (1.21, "lower", 1.2, False),
        (0.8, "higher", 0.8, True),
        (0.79, "higher", 0.8, False),
        (0.91, "equal", 0.1, True),
        (1.11, "equal", 0.1, False),
        (0.89, "equal", 0.1, False),
        (5.0, "lower", None, None),
    ],
)
def test_a_target_has_a_direction(ratio: float, better: str, target: float | None, is_reached: bool | None) -> None:
    one = beside([ratio], [1.0], better, target=target)
    assert one.is_reached is is_reached
    assert ("MISSED" in one.line()) is (is_reached is False)
    assert ("reached" in one.line()) is (is_reached is True)


@pytest.mark.parametrize(
    ("ours", "better", "against", "verdict"),
    [
        ([0.5, 0.9], "lower", "tool", "ours"),
        ([1.5, 1.1], "lower", "tool", "theirs"),
        ([1.5, 1.1], "higher", "tool", "ours"),
        ([0.5, 0.9], "higher", "tool", "theirs"),
        ([0.9, 1.1, 1.2], "lower", "tool", "level"),
        ([1.0, 1.0], "lower", "tool", "level"),
        ([1.0, 1.1], "lower", "tool", "theirs"),
        ([1.0004, 1.0004], "lower", "tool", "level"),
        ([1.0006, 1.0006], "lower", "tool", "theirs"),
        ([0.5, 0.9], "lower", "yardstick", ""),
        ([0.5, 0.9], "lower", "ourselves", ""),
        ([0.5, 0.9], "equal", "tool", ""),
    ],
)
def test_who_is_better_is_said_where_the_rounds_agree(
    ours: list[float], better: str, against: Any, verdict: str
) -> None:
    assert beside(ours, [1.0] * len(ours), better, against=against).verdict == verdict


def test_a_missing_peer_has_no_ratio_no_target_and_no_verdict() -> None:
    one = beside([2.0], [], target=1.0, missing="litgpt is not installed")
    assert math.isnan(one.ratio)
    assert (one.ratios, one.is_reached, one.verdict) == ([], None, "")
    assert "litgpt is not installed" in one.line()
    assert "MISSED" not in one.line()


@pytest.mark.parametrize(
    ("ours", "theirs", "missing"),
    [([], [1.0], ""), ([1.0], [0.0], ""), ([math.nan], [1.0], ""), ([1.0], [math.inf], "")],
)
def test_what_has_no_ratio_is_refused(ours: list[float], theirs: list[float], missing: str) -> None:
    with pytest.raises(ValueError, match=r"save: ours \[.*\], theirs \[.*\]; need numbers, theirs not zero"):
        beside(ours, theirs, missing=missing)


@pytest.mark.parametrize(("theirs", "missing"), [([], ""), ([1.0], "not installed")])
def test_theirs_or_a_reason(theirs: list[float], missing: str) -> None:
    with pytest.raises(ValueError, match=r"save: theirs \[.*\], missing: '.*'; need one of them"):
        beside([1.0], theirs, missing=missing)


def test_rounds_are_put_together_by_name_and_peer() -> None:
    rounds = [[beside([1.0], [2.0]), Comparison("load", "dd", "s", [5.0], [5.0], "lower")] for _ in range(2)]
    rounds.append([beside([3.0], [4.0], note="last")])
    save, load = merged(rounds)
    assert (save.ours, save.theirs, save.note) == ([1.0, 1.0, 3.0], [2.0, 2.0, 4.0], "last")
    assert (load.name, load.ours) == ("load", [5.0, 5.0])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    found = [beside([1.0, 2.0], [3.0, 4.0], target=1.5, note="a | b"), beside([1.0], [], missing="none")]
    write(tmp_path / "found.json", found)
    assert read(tmp_path / "found.json") == [
        Comparison(**vars(one) | {"ours": list(one.ours), "theirs": list(one.theirs)}) for one in found
    ]
    write(None, found)


@pytest.mark.parametrize("is_backwards", [False, True])
def test_who_is_first_changes_but_not_which_is_which(is_backwards: bool) -> None:
    called: list[str] = []

    def ours() -> str:
        called.append("ours")
        return "ours"

    def theirs() -> str:
        called.append("theirs")
        return "theirs"

    assert by_turns(ours, theirs, is_backwards=is_backwards) == ("ours", "theirs")
    assert called == (["theirs", "ours"] if is_backwards else ["ours", "theirs"])
