"""Seconds by part."""

import time

import pytest
import torch

from gptdist.telemetry.clock import StepClock
from gptdist.telemetry.memory import peak_memory_bytes

CPU = torch.device("cpu")


def test_the_inner_part_has_its_time_to_itself() -> None:
    clock = StepClock(CPU)
    begin = time.perf_counter()
    with clock.part("forward_backward"):
        time.sleep(0.02)
        with clock.part("communication"):
            time.sleep(0.05)
    passed = time.perf_counter() - begin
    with clock.watching_collectives():
        taken = clock.take()
    assert taken["communication"] >= 0.05
    assert 0.02 <= taken["forward_backward"] == pytest.approx(passed - taken["communication"], abs=0.005)
    assert clock.take()["forward_backward"] == 0.0, "begun anew"


def test_what_is_within_an_evaluation_is_the_evaluations() -> None:
    clock = StepClock(CPU)
    with clock.part("evaluation"), clock.part("communication"):
        time.sleep(0.02)
    with clock.watching_collectives():
        taken = clock.take()
    assert taken["evaluation"] >= 0.02
    assert taken["communication"] == 0.0


def test_unwatched_communication_is_unknown_and_the_watch_ends() -> None:
    from torch._C._distributed_c10d import Work

    wait, clock = Work.wait, StepClock(CPU)
    assert clock.take()["communication"] is None
    with clock.watching_collectives():
        assert Work.wait is not wait
    assert Work.wait is wait


def test_a_part_costs_next_to_nothing() -> None:
    """A thousand parts a step would still be below a hundredth of a second."""
    clock = StepClock(CPU)
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        for _ in range(1000):
            with clock.part("data"):
                pass
        best = min(best, time.perf_counter() - begin)
    assert best < 0.01


def test_peak_memory_is_at_least_what_was_just_filled() -> None:
    before = peak_memory_bytes(CPU)
    torch.ones(30 * 2**20, dtype=torch.float32)
    after = peak_memory_bytes(CPU)
    assert before is not None
    assert after is not None
    assert after >= before
    assert after > 120 * 2**20
