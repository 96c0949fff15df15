"""Records around a step: how far they are off, which belong together, what the guards did."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gptdist.data.attempts import attempt_of_step, read_attempts
from gptdist.telemetry.ledger import append_json_line
from gptdist.telemetry.metrics import METRICS_NAME
from gptdist.triage.robust import robust_z
from gptdist.triage.text import timeline_lines
from gptdist.triage.timeline import Timeline, judged, line_of, read_timeline
from tests.support.made_ledger import MadeRun


def _rows(losses: Sequence[float | None], attempt: int = 1, first: int = 1) -> list[dict[str, Any]]:
    return [
        {"kind": "train", "attempt": attempt, "step": first + i, "loss": loss, "grad_norm": 1.0 + 0.01 * (i % 3)}
        for i, loss in enumerate(losses)
    ]


def test_a_robust_z_is_the_distance_from_the_median() -> None:
    ordinary = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 1e9]
    assert robust_z(8.0, ordinary, 0.0) == pytest.approx((8.0 - 5.0) / (1.4826 * 2.0))
    assert robust_z(8.0, ordinary, 10.0) == pytest.approx(0.3)
    assert robust_z(8.0, ordinary[:7], 0.0) is None
    assert robust_z(2.0, [1.0] * 8, 0.0) == 0.0


def test_a_falling_loss_is_ordinary_and_a_jump_is_not() -> None:
    losses = [5.0 - 0.05 * i + 0.01 * (i % 2) for i in range(40)]
    losses[30] = 5.2
    records = judged(_rows(losses))
    assert [one.step for one in records if one.is_odd] == [31]
    assert records[30].loss_z > 6.0, "although the run has had such losses before"
    assert records[7].loss_z is None


def test_what_is_not_finite_or_skipped_is_odd_and_compares_with_nothing() -> None:
    rows = _rows([3.0] * 20 + [None] + [9.0] * 8 + [3.0])
    rows[21]["skipped"] = True
    records = judged(rows)
    assert [one.step for one in records if one.is_odd] == list(range(21, 30))
    assert records[28].loss_z == pytest.approx(6.0 / (0.02 * 3.0)), "those before it have not become ordinary"


def test_of_a_step_done_twice_the_one_gone_on_from_counts() -> None:
    starts = [SimpleNamespace(number=1, first_step=0), SimpleNamespace(number=2, first_step=3)]
    starts.append(SimpleNamespace(number=3, first_step=2))
    rows = _rows([1.0] * 5) + _rows([2.0] * 3, attempt=2, first=4) + _rows([3.0] * 3, attempt=3, first=3)
    found = [[(one["step"], one["loss"]) for one in line_of(rows, starts, attempt)] for attempt in starts]
    assert found[0] == [(step, 1.0) for step in range(1, 6)]
    assert found[1] == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0), (6, 2.0)]
    assert found[2] == [(1, 1.0), (2, 1.0), (3, 3.0), (4, 3.0), (5, 3.0)]


def _made(tmp_path: Path) -> Path:
    """Skip steps 19 and 20 of attempt 1, go back to 15, and go on to 17."""
    made = MadeRun(tmp_path)
    ledger = made.start(0, 0, None)
    for row in _rows([3.0] * 18 + [9.0, 9.5]) + _rows([3.0, 3.1], attempt=2, first=16):
        skipped = row["loss"] > 8.0
        append_json_line(made.run / METRICS_NAME, row | {"skipped": skipped, "lr": 1e-3, "step_seconds": 0.5})
    for step, value in ((19, 9.0), (20, "nan")):
        facts = {"what": "loss", "value": value, "batch": f"spikes/{step}.jsonl"}
        numbers = {"mean": 3.0, "z_score": 100.0} if step == 19 else {"mean": None, "z_score": None}
        ledger.write("skip", step=step, first_sample=step * 8 - 8, last_sample=step * 8 - 1, **facts, **numbers)
    ledger.write("rewind", step=20, to_step=15, first_sample=120, last_sample=159, rewinds=1)
    ledger.attempt += 1
    made.write_start(ledger, 15, 160, 1)
    return made.run


def _timeline(run: Path, step: int, number: int | None = None) -> Timeline:
    attempts = read_attempts(run)
    return read_timeline(run, attempts, attempt_of_step(run, attempts, step, number), step)


def test_a_skipped_step_is_told_with_what_the_guards_did(tmp_path: Path) -> None:
    run = _made(tmp_path)
    last = _timeline(run, 20)
    assert (last.attempt, last.first_odd_step, last.is_skipped, last.is_recorded) == (1, 19, True, True)
    assert last.actions == (
        "skipped: loss is nan; the weights stayed as they were",
        "the run went back from step 20 to 15, and passed over samples 120 to 159",
    )
    assert "loss 9 is 100.0 standard deviations above 3" in _timeline(run, 19).actions[0]
    lines = timeline_lines("test", last)
    assert lines[0] == "1. What happened: test, step 20 of attempt 1 (1 ranks = data 1 x tensor 1; rewind at step 20)"
    assert "times: step_seconds 0.5" in lines
    assert "records are odd from step 19 on" in lines
    assert [line.split()[:2] for line in lines if line.startswith((">*", " *"))] == [["*", "19"], [">*", "20"]]


def test_a_taken_step_and_one_behind_the_last_record(tmp_path: Path) -> None:
    run = _made(tmp_path)
    taken = _timeline(run, 16)
    assert (taken.attempt, taken.first_odd_step, taken.attempt_end) == (2, 16, "runs, or was killed")
    assert taken.actions[0].startswith("nothing: the step was taken (guards refuse what is not finite, or 10 dev")
    assert not any(one.is_odd for one in taken.records), "19 and 20 are not on its way"
    behind = _timeline(run, 18)
    assert (behind.attempt, behind.is_recorded) == (2, False)
    assert "step 18 is behind the last record: it failed, was lost, or is under way" in timeline_lines("test", behind)
