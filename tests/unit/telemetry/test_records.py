"""Ledger and metrics: whole lines, attempts counted, the console line and the file from the same numbers."""

import json
import logging
from pathlib import Path

import pytest

from gptdist.telemetry.ledger import Ledger, append_json_line, read_json_lines
from gptdist.telemetry.metrics import Metrics, set_up_logging


def test_attempts_are_counted_over_restarts(tmp_path: Path) -> None:
    for attempt in (1, 2, 3):
        ledger = Ledger(tmp_path / "run")
        assert ledger.attempt == attempt
        ledger.write("start", step=attempt * 10)
    events = read_json_lines(tmp_path / "run" / "ledger.jsonl")
    assert [(event["attempt"], event["step"]) for event in events] == [(1, 10), (2, 20), (3, 30)]
    assert all(event["time"] > 1.7e9 for event in events)


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    append_json_line(path, {"step": 1})
    with path.open("ab") as file:
        file.write(b'{"step": 2, "lo')
    assert read_json_lines(path) == [{"step": 1}]
    assert read_json_lines(tmp_path / "gone") == []


def test_one_line_on_the_console_and_the_same_numbers_in_the_file(tmp_path: Path, capsys) -> None:
    set_up_logging(rank=0)
    numbers = {
        "loss": 2.41127,
        "grad_norm": 0.874,
        "lr": 3e-4,
        "tokens_per_second": 41210.4,
        "mfu": None,
        "consumed_samples": 7,
    }
    with Metrics(tmp_path, 2, train_steps=10, first_step=4, tensorboard=False) as metrics:
        metrics.log("train", 5, numbers)
        metrics.advance(5)
    assert capsys.readouterr().out == "step 5 | loss 2.4113 | grad_norm 0.87 | lr 3.0e-04 | 41,210 tokens/s\n"
    record = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert record == {"kind": "train", "attempt": 2, "step": 5, **numbers}


@pytest.mark.parametrize("rank", [1, 7])
def test_other_ranks_only_warn_and_say_who_they_are(rank: int, capsys) -> None:
    set_up_logging(rank)
    logging.getLogger("gptdist.x").info("not shown")
    logging.getLogger("gptdist.x").warning("late by %d s", 3)
    assert capsys.readouterr().out == f"rank {rank}: late by 3 s\n"
