"""Whatever asks a run to stop, its ranks agree on the step, save, and say by their status who asked."""

import time
from pathlib import Path

import yaml

from gptdist.checkpoint.audit import audit
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


def _train_until(folder: Path, config: Path, step: int) -> None:
    """Train past ``step``, and stop there by the file."""
    (folder / "run" / "STOP").unlink(missing_ok=True)
    with started_ranks(2, train_as_command, {}, str(config)) as (_, pipes):
        while max(_losses(folder), default=0) < step:
            assert not any(pipe.poll() for pipe in pipes)
            time.sleep(0.01)
        (folder / "run" / "STOP").touch()
        assert [pipe.recv()[1:] for pipe in pipes] == [("", EXIT_STOPPED)] * 2


def _losses(folder: Path) -> dict[int, set[float]]:
    found: dict[int, set[float]] = {}
    for row in read_json_lines(folder / "run" / "metrics.jsonl"):
        if row["kind"] == "train":
            found.setdefault(row["step"], set()).add(row["loss"])
    return found


def test_it_stops_between_two_steps_is_saved_and_goes_on(tmp_path: Path) -> None:
    """By the time that it has, then by a file; the losses are those of a run that nobody stopped."""
    config = _config(tmp_path)
    assert run_ranks(2, train_as_command, {STOP_AFTER: "5"}, str(config)) == [EXIT_REQUEUE] * 2
    (saved,) = step_folders(tmp_path / "run" / "checkpoints")
    last = max(_losses(tmp_path))
    assert saved.name == f"step_{last:08d}"
    assert _events(tmp_path) == [("start", None), ("checkpoint", None), ("stopped", "time_limit")]
    _train_until(tmp_path, config, last + 3)
    assert _events(tmp_path)[3:] == [("start", None), ("checkpoint", None), ("stopped", "kill_file")]
    assert not audit(tmp_path / "run").problems
    (tmp_path / "whole").mkdir()
    _train_until(tmp_path / "whole", _config(tmp_path / "whole"), last + 3)
    stopped, whole = _losses(tmp_path), _losses(tmp_path / "whole")
    assert all(stopped[step] == whole[step] for step in range(1, last + 4)), "of both attempts, bit for bit"
