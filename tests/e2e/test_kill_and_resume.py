"""Real launches: killed with SIGKILL, stopped with SIGTERM, resumed by the same command."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from gptdist.checkpoint.audit import audit
from gptdist.telemetry.ledger import read_json_lines
from tests.support.datasets import GPT2, run_tree
from tests.support.ranks import repository

STEPS = 100
START_TIMEOUT_SECONDS = 300
ENDING_SECONDS = 30


def _config(folder: Path, name: str) -> Path:
    """Two data-parallel ranks with ZeRO-1 and dropout; a checkpoint every other step, so that kills often hit one."""
    tree = run_tree(
        folder,
        name=name,
        model=GPT2 | {"hidden_dropout": 0.1, "attention_dropout": 0.1},
        run_dir=str(folder / name),
        training={"train_steps": STEPS},
        intervals={"log_steps": 1, "save_steps": 2},
        launch={"ranks_per_node": 2, "threads_per_rank": 1, "max_restarts": 0},
    )
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _launch(config: Path, *overrides: str) -> subprocess.Popen:
    argv = [sys.executable, "-m", "gptdist.cli.main", "launch", "local", str(config), *overrides]
    log = config.with_suffix(".log").open("a")
    return subprocess.Popen(argv, cwd=repository(), stdout=log, stderr=subprocess.STDOUT)


def _records(config: Path) -> list[dict]:
    return [r for r in read_json_lines(config.with_suffix("") / "metrics.jsonl") if r["kind"] == "train"]


def _wait_for_step(config: Path, process: subprocess.Popen, step: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while max((record["step"] for record in _records(config)), default=0) < step:
        assert process.poll() is None, config.with_suffix(".log").read_text()
        assert time.monotonic() < deadline, config.with_suffix(".log").read_text()
        time.sleep(0.01)


def _finish(config: Path, *overrides: str) -> str:
    process = _launch(config, *overrides)
    status = process.wait(timeout=START_TIMEOUT_SECONDS)
    log = config.with_suffix(".log").read_text()
    assert status == 0, log
    return log


def _kill_everything(process: subprocess.Popen) -> None:
    root = psutil.Process(process.pid)
    for victim in [*root.children(recursive=True), root]:
        victim.kill()
    process.wait()


def _losses(config: Path) -> dict[int, float]:
    """Return the newest record of each step."""
    return {record["step"]: record["loss"] for record in _records(config)}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, float]]:
    folder = tmp_path_factory.mktemp("kill")
    config = _config(folder, "whole")
    _finish(config)
    return folder, _losses(config)


def _kill(process: subprocess.Popen, victim: str) -> None:
    """Kill one of the job's processes, or all; the others must end by themselves."""
    launcher = psutil.Process(process.pid)
    (torchrun,) = launcher.children()
    ranks = torchrun.children()
    assert len(ranks) == 2
    if victim == "all":
        _kill_everything(process)
    else:
        {"launcher": launcher, "torchrun": torchrun, "rank": random.choice(ranks)}[victim].kill()
        assert process.wait(timeout=START_TIMEOUT_SECONDS) != 0
    _, alive = psutil.wait_procs([torchrun, *ranks], timeout=ENDING_SECONDS)
    assert not alive, "a process lives on without its launcher"


def test_kill_minus_nine_of_whatever_process_and_the_losses_are_the_same_bits(uninterrupted) -> None:
    folder, expected = uninterrupted
    config = _config(folder, "killed")
    for step, victim in ((13, "all"), (30, "launcher"), (45, "torchrun"), (60, "rank")):
        process = _launch(config)
        _wait_for_step(config, process, step)
        time.sleep(random.uniform(0.0, 0.3))
        _kill(process, victim)
    log = _finish(config)
    assert "resumed" in log
    assert len({record["attempt"] for record in _records(config)}) == 5
    for record in _records(config):  # every attempt's every step, the repeated ones too
        assert record["loss"] == expected[record["step"]], f"attempt {record['attempt']} step {record['step']}"
    assert set(_losses(config)) == set(range(1, STEPS + 1))
    found = audit(folder / "killed")
    assert not found.problems
    assert (len(found.line), found.consumed_samples) == (5, 8 * STEPS)
    assert not list((folder / "killed" / "checkpoints").glob(".partial-*")), "left-overs are cleaned up"


def test_sigterm_saves_and_the_same_command_goes_on(uninterrupted) -> None:
    folder, expected = uninterrupted
    config = _config(folder, "stopped")
    process = _launch(config, "intervals.save_steps=1000")
    _wait_for_step(config, process, 5)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=START_TIMEOUT_SECONDS)
    saved = list((folder / "stopped" / "checkpoints").glob("step_*"))
    assert len(saved) == 1, config.with_suffix(".log").read_text()
    _finish(config)
    assert _losses(config) == expected
    events = [event["event"] for event in read_json_lines(folder / "stopped" / "ledger.jsonl")]
    assert events[:3] == ["start", "checkpoint", "stopped"]
    assert events[-1] == "done"


def test_another_layout_after_a_kill_says_what_changed(uninterrupted) -> None:
    folder, expected = uninterrupted
    config = _config(folder, "moved")
    process = _launch(config, "model.attention_dropout=0.0")
    _wait_for_step(config, process, 9)
    _kill_everything(process)
    log = _finish(config, "model.attention_dropout=0.0", "parallel.tensor_parallel_size=2", "parallel.zero_stage=3")
    assert "config changed since the checkpoint: parallel.tensor_parallel_size: 1 → 2" in log
    assert "config changed since the checkpoint: parallel.zero_stage: 1 → 3" in log
    assert max(_losses(config)) == STEPS
    found = audit(folder / "moved")
    assert not found.problems
    assert "parallel.zero_stage: 1 → 3" in found.line[-1].changed
    assert _losses(config)[STEPS] < expected[1] - 0.5, "it goes on learning"


def test_a_finished_run_is_not_begun_again(uninterrupted) -> None:
    folder, expected = uninterrupted
    config = folder / "whole.yaml"
    _finish(config)
    assert _losses(config) == expected
    assert len(_records(config)) == STEPS


def test_two_jobs_cannot_write_one_run(uninterrupted) -> None:
    folder, _ = uninterrupted
    config = _config(folder, "twice")
    first = _launch(config, "training.train_steps=100000")
    _wait_for_step(config, first, 1)
    second = _launch(config)
    try:
        assert second.wait(timeout=START_TIMEOUT_SECONDS) != 0
    finally:
        _kill_everything(first)
    assert "another job is training here" in config.with_suffix(".log").read_text()
