"""When a job begins again by itself, and when that would help nobody."""

from typing import Any

import pytest

from gptdist.config.launch import LaunchConfig
from gptdist.errors import EXIT_DONE, EXIT_FAILED, EXIT_REQUEUE, EXIT_STALLED, EXIT_STOPPED, EXIT_USER_ERROR
from gptdist.telemetry.rank_log import Failure
from launch.outcome import Outcome
from launch.restarts import Decision, Ended, decide

LIMITS = LaunchConfig(max_restarts=3, restart_wait_seconds=5.0)


def ended(step: int, saved: int, kind: Any = "killed", text: str = "Boom") -> Ended:
    failure = Failure(kind, 0, "h1", 1.0, step, "data", f"Traceback\n{text}")
    return Ended(Outcome(EXIT_STALLED if kind == "stalled" else EXIT_FAILED, step, (failure,)), saved)


@pytest.mark.parametrize("status", [EXIT_DONE, EXIT_USER_ERROR, EXIT_STOPPED, EXIT_REQUEUE])
def test_only_failures_begin_again(status: int) -> None:
    assert decide([Ended(Outcome(status, 5), 5)], LIMITS) == Decision(False, 0.0, "")


def test_waits_double_and_restarts_end() -> None:
    history = [ended(5 + number, 0) for number in range(4)]
    found = [decide(history[: count + 1], LIMITS) for count in range(4)]
    assert [one.wait_seconds for one in found[:3]] == [5.0, 10.0, 20.0]
    assert [one.restarts for one in found] == [True, True, True, False]
    assert "4 attempts in a row failed without another checkpoint, launch.max_restarts is 3" in found[3].reason
    assert decide([ended(5, 0)] * 20, LaunchConfig(max_restarts=50)).wait_seconds == 300.0, "no longer than that"


def test_another_checkpoint_begins_the_count_anew() -> None:
    history = [ended(5, 0), ended(6, 0), ended(7, 0), ended(25, 20)]
    assert decide(history, LIMITS).wait_seconds == 5.0
    assert not decide([*history[:3], ended(8, 0)], LIMITS).restarts
    assert decide([ended(25, 20)], LIMITS, saved_before=20).wait_seconds == 5.0


def test_the_same_error_in_the_same_step_is_not_tried_a_third_time() -> None:
    loop = [ended(7, 5, "error"), ended(7, 5, "error")]
    found = decide(loop, LIMITS, saved_before=5)
    assert not found.restarts
    assert "2 attempts in a row failed after step 7 in the same way (Boom)" in found.reason
    for other in (ended(8, 5, "error"), ended(7, 5, "error", "Bang"), ended(7, 5, "killed"), ended(7, 5, "stalled")):
        assert decide([loop[0], other], LIMITS, saved_before=5).restarts
    assert decide([ended(7, 5), ended(7, 5)], LIMITS, saved_before=5).restarts, "chance can kill twice"


def test_none_at_all_says_nothing_more() -> None:
    assert decide([ended(5, 0)], LaunchConfig(max_restarts=0)) == Decision(False, 0.0, "")
