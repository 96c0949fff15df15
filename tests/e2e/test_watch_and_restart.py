"""A launched run looks after itself: killed and hung ranks, a time limit, a file that stops it; the losses stay."""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml

from gptdist.checkpoint.audit import audit
from gptdist.checkpoint.audit_report import report
from gptdist.checkpoint.find import step_folders
from gptdist.errors import EXIT_REQUEUE, EXIT_USER_ERROR
from gptdist.telemetry.heartbeat import node_folder, read_beats
from gptdist.telemetry.ledger import read_json_lines
from launch.job import heartbeat_folder
from tests.e2e.test_kill_and_resume import _launch
from tests.support.datasets import GPT2, run_tree

STEPS, EVAL_STEPS = 120, 60
LONG_SECONDS = 300


def _config(folder: Path, name: str, **launch: float) -> Path:
    tree = run_tree(
        folder,
        name=name,
        model=GPT2 | {"hidden_dropout": 0.1},
        run_dir=str(folder / name),
        training={"train_steps": STEPS},
        intervals={"log_steps": 1, "save_steps": 10, "eval_steps": EVAL_STEPS},
        data={"eval_samples": 200},  # a second or so
        launch={"ranks_per_node": 2, "threads_per_rank": 1, "restart_wait_seconds": 0.1, **launch},
    )
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _said(config: Path) -> str:
    return config.with_suffix(".log").read_text()


def _rows(config: Path, kind: str) -> list[dict]:
    return [row for row in read_json_lines(config.with_suffix("") / "metrics.jsonl") if row["kind"] == kind]


def _wait_for(config: Path, process: subprocess.Popen, step: int, attempt: int) -> None:
    deadline = time.monotonic() + LONG_SECONDS
    while not any(row["step"] >= step and row["attempt"] >= attempt for row in _rows(config, "train")):
        assert process.poll() is None, _said(config)
        assert time.monotonic() < deadline, _said(config)
        time.sleep(0.01)


def _numbers(config: Path, kind: str, name: str) -> dict[int, set[float]]:
    """Return what any attempt recorded of each step."""
    found: dict[int, set[float]] = {}
    for row in _rows(config, kind):
        found.setdefault(row["step"], set()).add(row[name])
    return found


def _ranks(process: subprocess.Popen) -> list[psutil.Process]:
    (torchrun,) = psutil.Process(process.pid).children()
    return sorted(torchrun.children(), key=lambda rank: int(rank.environ()["RANK"]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = _config(tmp_path_factory.mktemp("watch"), "whole")
    assert _launch(config).wait(LONG_SECONDS) == 0, _said(config)
    return config


def _assert_like(whole: Path, config: Path) -> None:
    assert _numbers(config, "train", "loss") == _numbers(whole, "train", "loss"), "of every attempt, bit for bit"
    assert _numbers(config, "validation", "validation_loss") == _numbers(whole, "validation", "validation_loss")
    found = audit(config.with_suffix(""))
    assert not found.problems
    assert found.consumed_samples == 8 * STEPS


def test_a_killed_rank_and_one_that_hangs_are_restarted(whole: Path) -> None:
    config = _config(whole.parent, "hurt", stall_seconds=6.0)
    process = _launch(config)
    _wait_for(config, process, 25, attempt=1)
    _ranks(process)[1].kill()
    _wait_for(config, process, 45, attempt=2)
    _ranks(process)[0].send_signal(signal.SIGSTOP)
    assert process.wait(LONG_SECONDS) == 0, _said(config)
    _assert_like(whole, config)
    node, run = os.uname().nodename, config.with_suffix("")
    said = _said(config)
    assert f"gptdist launch: rank 1 on {node} died first, after step" in said
    assert "killed by SIGKILL" in said
    assert f"gptdist launch: rank 0 on {node} made no progress, after step" in said
    assert said.count("gptdist launch: restart 1 of 3 in a row, in 0.1 s") == 2
    assert "Traceback" not in said, "of those that missed the first"
    assert "in main" in (run / "logs/launch_0002/stacks_00001.txt").read_text(), "where the other one waited"
    launches = sorted(path.name for path in (run / "logs").glob("launch_*"))
    assert launches == ["launch_0001", "launch_0002", "launch_0003"]
    assert "step 30 | loss" in (run / "logs/launch_0002/rank_00000.log").read_text()
    ends = [event for event in read_json_lines(run / "ledger.jsonl") if event["event"] == "ended"]
    assert [(end["attempt"], end["reason"], end["rank"], end["node"]) for end in ends] == [
        (1, "killed", 1, node),
        (2, "stalled", 0, node),
    ]
    shown = "\n".join(report(audit(run)))
    assert f"killed: rank 1 on {node}" in shown
    assert f"stalled: rank 0 on {node}" in shown


def test_a_signal_within_an_evaluation_stops_it_and_the_resumed_run_makes_up_for_it(whole: Path) -> None:
    config = _config(whole.parent, "stopped")
    run = config.with_suffix("")
    process = _launch(config)
    beats = node_folder(str(heartbeat_folder(run / "logs/launch_0001")))
    deadline = time.monotonic() + LONG_SECONDS
    while not any(beat.phase == "evaluation" and beat.step == EVAL_STEPS for beat in read_beats(beats)):
        assert process.poll() is None, _said(config)
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGUSR1)
    assert process.wait(LONG_SECONDS) == EXIT_REQUEUE, _said(config)
    assert f"stopped after step {EVAL_STEPS} by a signal (SIGTERM or SIGUSR1); the same command resumes" in _said(
        config
    )
    assert not _rows(config, "validation")
    assert next(folder.name for folder in step_folders(run / "checkpoints")) == f"step_{EVAL_STEPS:08d}"
    (run / "STOP").touch()
    assert _launch(config).wait(LONG_SECONDS) == EXIT_USER_ERROR
    assert f"{run}/STOP: asks this run to stop; remove it to go on" in _said(config)
    (run / "STOP").unlink()
    assert _launch(config).wait(LONG_SECONDS) == 0, _said(config)
    _assert_like(whole, config)
    assert "stopped on request (signal)" in "\n".join(report(audit(run)))
