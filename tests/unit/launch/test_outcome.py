"""What became of ranks, from what they and torchrun have left."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gptdist.errors import EXIT_DONE, EXIT_FAILED, EXIT_REQUEUE, EXIT_STALLED, EXIT_STOPPED, EXIT_USER_ERROR
from gptdist.telemetry.heartbeat import Beat
from gptdist.telemetry.rank_log import Failure, read_failures, record_failure
from launch.outcome import Outcome, failures_on, in_order, joined, leave_outcome, outcome_of, read_outcomes


def beats(*phases: Any, step: int = 5) -> list[Beat]:
    return [Beat(rank, 100 + rank, step + rank, phase, 0.0, 0.0, 1) for rank, phase in enumerate(phases)]


def failure(kind: Any, rank: int, when: float, node: str = "h1", text: str = "Boom") -> Failure:
    return Failure(kind, rank, node, when, step=5, phase="data", text=text)


@pytest.mark.parametrize(
    ("phases", "torchrun", "status"),
    [
        (("done", "done"), 0, EXIT_DONE),
        (("requeue", "requeue"), 143, EXIT_REQUEUE),
        (("requeue", "done"), 0, EXIT_REQUEUE),
        (("stopped", "stopped"), 0, EXIT_STOPPED),
        (("stopped", "requeue"), 0, EXIT_STOPPED),
        (("stopped", "communication"), 1, EXIT_STOPPED),
        (("done", "step"), 1, EXIT_FAILED),
        ((), 1, EXIT_FAILED),
        ((), -15, EXIT_REQUEUE),
        (("start", "start"), 143, EXIT_REQUEUE),
        (("start", "start"), 138, EXIT_REQUEUE),
        (("start", "start"), 130, EXIT_STOPPED),
        (("start", "start"), -9, EXIT_FAILED),
    ],
)
def test_without_a_failure_the_last_phases_decide(phases: tuple[str, ...], torchrun: int, status: int) -> None:
    assert outcome_of(beats(*phases), [], torchrun) == Outcome(status, 5 if phases else 0)


@pytest.mark.parametrize(
    ("kind", "status"),
    [("error", EXIT_FAILED), ("killed", EXIT_FAILED), ("refused", EXIT_USER_ERROR), ("stalled", EXIT_STALLED)],
)
def test_the_first_failure_decides(kind: str, status: int) -> None:
    found = outcome_of(beats("failed", "failed"), [failure("error", 1, 20.0), failure(kind, 0, 10.0)], 1)
    assert found.status == status
    assert found.first_failure is not None
    assert found.first_failure.kind == kind


def test_who_does_not_stop_in_time_is_killed_for_it_and_that_is_no_failure() -> None:
    killed = [failure("killed", 0, 70.0)]
    assert outcome_of(beats("checkpoint"), killed, 1, was_asked=True).status == EXIT_REQUEUE
    assert outcome_of(beats("checkpoint"), [failure("error", 0, 70.0)], 1, was_asked=True).status == EXIT_FAILED


def test_a_person_who_stops_it_twice_wants_no_restart() -> None:
    missed = failure("error", 1, 70.0)
    assert outcome_of(beats("stopped", "failed"), [missed], 1) == Outcome(EXIT_STOPPED, 5, (missed,))


def test_a_rank_that_was_killed_comes_before_those_that_missed_it() -> None:
    """torchrun tells the second in which it saw the end, the others when they noticed."""
    missed, killed = failure("error", 0, 10.2), failure("killed", 1, 11.0)
    assert in_order([missed, killed]) == (killed, missed)
    late = failure("killed", 1, 40.0)
    assert in_order([late, missed]) == (missed, late), "torchrun itself killed this one"
    stall = failure("stalled", 2, 50.0)
    assert in_order([killed, missed, stall])[0] == stall


def test_what_ranks_and_torchrun_have_left_is_put_together(tmp_path: Path) -> None:
    record_failure(tmp_path, failure("error", 0, 10.0))
    record_failure(tmp_path, failure("error", 7, 10.0, node="h2"))
    failed = [{"rank": 1, "exit_code": -9, "time": 9}, {"rank": 0, "exit_code": -15, "time": 10}]
    (tmp_path / "torchrun_h1.json").write_text(json.dumps(failed))
    (tmp_path / "failure_00003.json").write_text("{")
    assert [one.rank for one in read_failures(tmp_path)] in ([0, 7], [7, 0])
    found = in_order(failures_on(tmp_path, "h1", beats("failed", "communication")))
    assert [(one.kind, one.rank, one.step) for one in found] == [("killed", 1, 6), ("error", 0, 5)]
    assert "SIGKILL" in found[0].text
    assert found[0].heading() == "rank 1 on h1 died first, after step 6, in 'communication'"
    assert "Boom" in (tmp_path / "rank_00000.log").read_text()


def test_a_crash_leaves_its_stack(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal; from gptdist.telemetry.rank_log import open_log\n"
        f"open_log(pathlib.Path({str(tmp_path)!r}), 1)\n"
        "def reads_where_nothing_is(): os.kill(os.getpid(), signal.SIGSEGV)\n"
        "reads_where_nothing_is()"
    )
    status = subprocess.run([sys.executable, "-c", code], check=False).returncode
    (tmp_path / "torchrun_h1.json").write_text(json.dumps([{"rank": 1, "exit_code": status, "time": 9}]))
    (found,) = failures_on(tmp_path, "h1", beats("done", "data"))
    assert found.text.startswith("killed by SIGSEGV\nFatal Python error: Segmentation fault")
    assert "in reads_where_nothing_is" in found.text


def test_outcomes_of_several_nodes_make_one(tmp_path: Path) -> None:
    leave_outcome(tmp_path, "h1", Outcome(EXIT_DONE, 9))
    leave_outcome(tmp_path, "h2", Outcome(EXIT_REQUEUE, 8))
    (tmp_path / "outcome_h3.json").write_text('{"status": 1')
    found = read_outcomes(tmp_path)
    assert list(found) == ["h1", "h2"]
    assert joined(list(found.values())) == Outcome(EXIT_REQUEUE, 8)
    bad = Outcome(EXIT_FAILED, 7, (failure("error", 4, 30.0),))
    early = Outcome(EXIT_USER_ERROR, 7, (failure("refused", 6, 20.0, node="h2"),))
    assert joined([bad, early, found["h1"]]).status == EXIT_USER_ERROR
