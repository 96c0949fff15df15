"""A plan beside a run: made run folders, what is refitted, and records that cannot be read."""

import json
from pathlib import Path
from typing import Any

import pytest

from gptdist.cli.main import main
from gptdist.plan.constants import FITTED, Constants
from gptdist.plan.device import find_device
from gptdist.plan.measured import Comparison, cluster_of, read_run
from gptdist.plan.projection import Cluster, project
from tests.support.datasets import make_run_config

ROW = {
    "data_seconds": 0.001,
    "forward_backward_seconds": 0.2,
    "communication_seconds": 0.05,
    "optimizer_seconds": 0.01,
    "other_seconds": 0.002,
    "checkpoint_seconds": 0.0,
    "peak_memory_gib": 0.75,
}


def make_run(folder: Path, rows: list[dict[str, Any]], **start: Any) -> Path:
    """Write the records of a run of two ranks that data parallelism splits; ``rows`` are added to a slow first line."""
    run = folder / "run"
    run.mkdir()
    config = make_run_config(folder, launch={"ranks_per_node": 2}).tree()
    record = {"event": "start", "attempt": 1, "world_size": 2, "config": config} | start
    (run / "ledger.jsonl").write_text(json.dumps(record) + "\n")
    first = {"kind": "train", "attempt": 1, "step": 10} | ROW | {"forward_backward_seconds": 9.0}
    lines = [first, *({"kind": "train", "attempt": 1, "step": 20 + 10 * n} | row for n, row in enumerate(rows))]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def compared(run: Path, constants: Constants = FITTED) -> Comparison:
    found = read_run(run)
    return Comparison(
        found, project(found.config, cluster_of(found, Cluster(find_device("cpu"), 1, 1, None, constants)))
    )


def test_medians_without_the_first_line(tmp_path: Path) -> None:
    rows = [ROW | {"forward_backward_seconds": seconds} for seconds in (0.2, 0.21, 5.0)]
    run = read_run(make_run(tmp_path, rows))
    assert run.seconds["forward and backward"] == 0.21
    assert run.seconds["data and the rest"] == pytest.approx(0.003)
    assert (run.steps, run.num_lines, run.world_size) == ((20, 40), 3, 2)
    assert run.peak_bytes == 0.75 * 2**30


def test_what_is_refitted_makes_the_terms_come_out(tmp_path: Path) -> None:
    run = make_run(tmp_path, [ROW])
    before = compared(run)
    after = compared(run, Constants(**(FITTED.tree() | before.refit())))
    for term in ("communication", "optimizer"):
        assert after.planned(term) == pytest.approx(ROW[f"{term}_seconds"])
    assert after.planned("forward and backward") == pytest.approx(0.2, rel=0.25)  # the loss has no constant of its own
    assert abs(after.planned("forward and backward") - 0.2) < abs(before.planned("forward and backward") - 0.2)
    assert after.plan.peak.total == pytest.approx(0.75 * 2**30)


def test_the_term_that_is_most_off(tmp_path: Path) -> None:
    comparison = compared(make_run(tmp_path, [ROW | {"communication_seconds": 3.0}]))
    assert comparison.most_off == "communication"
    assert any("most off: communication, planned " in line and "too short" in line for line in comparison.lines())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, file = make_run(tmp_path, [ROW]), tmp_path / "constants.yaml"
    assert main(["plan", "--from", str(run), "--write", str(file)]) == 0
    assert "constants that fit this run" in capsys.readouterr().out
    assert Constants.read(file).optimizer_bytes != FITTED.optimizer_bytes
    assert main(["plan", "--from", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["measured_seconds"]["optimizer"] == 0.01


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda run: (run / "ledger.jsonl").unlink(), "ledger.jsonl: no such file; name the folder of a run"),
        (lambda run: (run / "metrics.jsonl").write_text(""), "no attempt has more than 1 line of training"),
        (lambda run: (run / "metrics.jsonl").write_text("{torn\n{}\n"), "metrics.jsonl:1: is no JSON"),
        (lambda run: (run / "ledger.jsonl").write_text('{"event": "start", "attempt": 1}\n'), "of another version"),
    ],
)
def test_records_that_cannot_be_read(
    break_it: Any, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, [ROW])
    break_it(run)
    assert main(["plan", "--from", str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_a_last_line_that_a_crash_cut_short(tmp_path: Path) -> None:
    run = make_run(tmp_path, [ROW])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tra')
    assert read_run(run).num_lines == 1


def test_a_config_beside_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "some.yaml", "--from", str(tmp_path)]) == 2
    assert "config: 'some.yaml' beside --from" in capsys.readouterr().err
