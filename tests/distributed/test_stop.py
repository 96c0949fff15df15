"""Whatever asks a run to stop, its ranks agree on the step, save, and say by their status who asked."""

import time
from pathlib import Path

import pytest
import yaml

from gptdist.checkpoint.find import step_folders
from gptdist.errors import EXIT_REQUEUE, EXIT_STOPPED
from gptdist.telemetry.ledger import read_json_lines
from gptdist.train.stop_signal import STOP_AFTER
from tests.distributed.test_chaos import train_as_command
from tests.support.datasets import run_tree
from tests.support.ranks import run_ranks, started_ranks


def _config(folder: Path) -> Path:
    path = folder / "run.yaml"
    changes = {"training": {"train_steps": 100_000}, "intervals": {"log_steps": 1, "save_steps": 50_000}}
    path.write_text(yaml.safe_dump(run_tree(folder, run_dir=str(folder / "run"), **changes)))
    return path


def _events(folder: Path) -> list[tuple[str, str | None]]:
    return [(event["event"], event.get("reason")) for event in read_json_lines(folder / "run" / "ledger.jsonl")]


def test_a_time_that_is_over_before_the_first_step_trains_nothing(tmp_path: Path) -> None:
    config = _config(tmp_path)
    assert run_ranks(2, train_as_command, {STOP_AFTER: "0"}, str(config)) == [EXIT_REQUEUE] * 2
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert _events(tmp_path) == [("start", None), ("stopped", "time_limit")]


@pytest.mark.parametrize("kind", ["time_limit", "kill_file"])
def test_it_stops_between_two_steps_and_is_saved(tmp_path: Path, kind: str) -> None:
    config, metrics = _config(tmp_path), tmp_path / "run" / "metrics.jsonl"
    environment = {STOP_AFTER: "3"} if kind == "time_limit" else {}
    with started_ranks(2, train_as_command, environment, str(config)) as (_, pipes):
        if kind == "kill_file":
            while len(read_json_lines(metrics)) < 3:
                assert not any(pipe.poll() for pipe in pipes)
                time.sleep(0.01)
            (tmp_path / "run" / "STOP").touch()
        said = [pipe.recv()[1:] for pipe in pipes]
    assert said == [("", EXIT_STOPPED if kind == "kill_file" else EXIT_REQUEUE)] * 2
    (saved,) = step_folders(tmp_path / "run" / "checkpoints")
    last = read_json_lines(metrics)[-1]["step"]
    assert saved.name == f"step_{last:08d}"
    assert _events(tmp_path) == [("start", None), ("checkpoint", None), ("stopped", kind)]
