"""Who makes no progress, whose fault that is, and who is slow."""

from typing import Any

import pytest

from gptdist.telemetry.heartbeat import Beat
from launch.watch import Limits, RankView, culprit, stalled, straggler

LIMITS = Limits(stall_seconds=60.0, startup_seconds=600.0, shutdown_seconds=30.0)


def view(rank: int, phase: Any, seconds: float, step: int = 5, work: float = 0.0, node: str = "h1") -> RankView:
    return RankView(Beat(rank, 100 + rank, step, phase, 0.0, work, 1), node, seconds)


@pytest.mark.parametrize(
    ("phase", "seconds", "expected"),
    [
        ("data", 59.0, False),
        ("data", 61.0, True),
        ("communication", 61.0, True),
        ("build", 61.0, False),
        ("join", 601.0, True),
        ("finish", 61.0, False),
        ("finish", 601.0, True),
        ("done", 9999.0, False),
    ],
)
def test_each_phase_has_its_limit(phase: str, seconds: float, expected: bool) -> None:
    assert stalled([view(0, "step", 0.1), view(1, phase, seconds)], LIMITS) == expected


@pytest.mark.parametrize(
    ("ranks", "guilty"),
    [
        ([("communication", 61.0, 5), ("data", 60.0, 5), ("communication", 60.5, 5)], 1),
        ([("communication", 61.0, 5), ("communication", 60.0, 4), ("optimizer", 60.0, 5)], 1),
        ([("communication", 60.0, 5), ("communication", 61.0, 5)], 1),
        ([("done", 99.0, 5), ("checkpoint", 61.0, 5)], 1),
    ],
)
def test_the_one_that_others_wait_for_is_named(ranks: list[tuple[str, float, int]], guilty: int) -> None:
    found = culprit([view(rank, *one) for rank, one in enumerate(ranks)])
    assert found.beat.rank == guilty
    assert f"rank {guilty} on h1: '{ranks[guilty][0]}' since" in found.words()


def looks(work: list[float], steps: int = 20) -> tuple[list[RankView], list[RankView]]:
    before = [view(rank, "step", 0.0, step=100, work=7.0) for rank in range(len(work))]
    now = [view(rank, "step", 0.0, step=100 + steps, work=7.0 + steps * one) for rank, one in enumerate(work)]
    return before, now


def test_a_rank_that_works_longer_than_the_others_is_named() -> None:
    slow = straggler(*looks([0.1, 0.1, 0.16, 0.1]))
    assert slow is not None
    assert slow.words() == "rank 2 on h1 is slow: 0.16 s of own work a step, the median is 0.1 s"
    slow = straggler(*looks([0.1, 0.16]))
    assert slow is not None
    assert slow.rank == 1, "of two as well"


@pytest.mark.parametrize("work", [[0.1, 0.14, 0.1, 0.1], [0.2, 0.2], [0.3], []])
def test_nobody_is_slow(work: list[float]) -> None:
    assert straggler(*looks(work)) is None


def test_too_few_steps_say_nothing_and_a_new_rank_neither() -> None:
    before, now = looks([0.1, 0.9], steps=9)
    assert straggler(before, now) is None
    before, now = looks([0.1, 0.9])
    assert straggler(before[:1], now) is None
