"""Which checkpoints stay: each rule by itself, all of them together, and what no rule can touch."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gptdist.checkpoint.retention import Candidate, staying
from gptdist.config.retention import KeepConfig

NOW = 1e9
HOUR = 3600.0


def made(*steps: int, damaged: tuple[int, ...] = (), losses: dict[int, float] | None = None) -> list[Candidate]:
    """Checkpoints one hour apart, the newest saved just now."""
    return [
        Candidate(
            step,
            is_whole=step not in damaged,
            saved_at=NOW - HOUR * (len(steps) - 1 - number),
            loss=(losses or {}).get(step),
            windows="w",
        )
        for number, step in enumerate(steps)
    ]


def kept(found: list[Candidate], **rules: float) -> list[int]:
    return sorted(staying(KeepConfig.from_tree(rules), found, now=NOW))


def test_without_a_rule_everything_stays() -> None:
    assert kept(made(1, 2, 3, damaged=(2,))) == [1, 2, 3]


@pytest.mark.parametrize(
    ("rules", "steps"),
    [
        ({"last": 1}, [50]),
        ({"last": 3}, [30, 40, 50]),
        ({"last": 9}, [10, 20, 30, 40, 50]),
        ({"every_steps": 20}, [20, 40, 50]),
        ({"for_hours": 1.5}, [40, 50]),
        ({"for_hours": 0.01}, [50]),
        ({"best": 2}, [10, 30, 40, 50]),
        ({"last": 2, "every_steps": 30, "best": 1}, [10, 30, 40, 50]),
    ],
)
def test_rules(rules: dict[str, float], steps: list[int]) -> None:
    found = made(10, 20, 30, 40, 50, losses={10: 1.0, 30: 2.0, 40: 3.0})
    assert kept(found, **rules) == steps
    assert kept(found[::-1], **rules) == steps, "in any order"


def test_damaged_ones_take_no_place() -> None:
    losses = {10: 4.0, 20: 3.0, 30: 2.0, 40: 1.0, 50: 5.0}
    found = made(10, 20, 30, 40, 50, damaged=(40,), losses=losses)
    assert kept(found, last=2) == [30, 50]
    assert kept(found, best=1) == [30, 50]
    assert kept(found, every_steps=40) == [40, 50], "asked to stay for good: it may be mended"


def test_a_newer_damaged_one_does_not_count_and_is_left_to_be_mended() -> None:
    assert kept(made(10, 20, 30, damaged=(30,)), last=1) == [20, 30]
    assert kept(made(10, 20, damaged=(10, 20)), last=1) == [10, 20], "none is whole: hands off"


def test_the_older_of_equal_losses_and_no_others_windows() -> None:
    found = made(10, 20, 30, losses={10: 1.0, 20: 1.0, 30: 2.0})
    assert kept(found, best=1) == [10, 30]
    found[0] = replace(found[0], windows="other")
    assert kept(found, best=1) == [20, 30]


def test_what_a_rewind_would_go_back_to_stays() -> None:
    found = made(10, 20, 30, 40)
    found[3] = replace(found[3], first_skipped=25)
    assert kept(found, last=1) == [20, 40]
    found[3] = replace(found[3], first_skipped=20)
    assert kept(found, last=1) == [10, 40], "one of the skipped step itself is no place to go back to"


def test_reasons_are_told() -> None:
    stays = staying(KeepConfig(last=2, every_steps=10), made(10, 20, 30), now=NOW)
    assert str(stays[30]) == "newest whole, last 2, every 10"
    assert (stays[30].if_whole, stays[10].if_whole) == (True, False)
    assert str(staying(KeepConfig(), made(10), now=NOW)[10]) == "no rule is set"


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        step=st.integers(1, 60),
        is_whole=st.booleans(),
        saved_at=st.floats(NOW - 10 * HOUR, NOW),
        loss=st.none() | st.sampled_from([1.0, 2.0, 3.0]),
        windows=st.sampled_from(["a", "b", None]),
        first_skipped=st.none() | st.integers(1, 60),
    ),
    unique_by=lambda one: one.step,
)
RULES = st.builds(
    KeepConfig,
    last=st.none() | st.integers(1, 4),
    every_steps=st.none() | st.integers(1, 9),
    best=st.none() | st.integers(1, 4),
    for_hours=st.none() | st.floats(0.1, 9.0),
)


@example(
    found=[
        Candidate(9, is_whole=True),
        Candidate(7, is_whole=True, loss=9.0, windows="b"),
        Candidate(6, is_whole=True, loss=2.0, windows="a"),
        Candidate(2, is_whole=True, loss=1.0, windows="b"),
    ],
    rules=KeepConfig(best=1, every_steps=6),
)
@given(found=CANDIDATES, rules=RULES)
def test_under_any_rules(found: list[Candidate], rules: KeepConfig) -> None:
    stays = staying(rules, found, now=NOW)
    whole = sorted((one.step for one in found if one.is_whole), reverse=True)
    gone = [one for one in found if one.step not in stays]
    if not whole or rules.keeps_everything:
        assert not gone
        return
    assert whole[0] in stays
    assert all(one.step < whole[0] for one in gone)
    assert set(whole[: rules.last or 1]) <= stays.keys()
    for one in gone:
        assert rules.every_steps is None or one.step % rules.every_steps
        assert rules.for_hours is None or one.saved_at <= NOW - rules.for_hours * HOUR
    again = staying(rules, [one for one in found if one.step in stays], now=NOW)
    assert set(again) == set(stays), "what stays is enough for the rules: nothing more goes the next time"
