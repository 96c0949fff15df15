"""A run ends when its validation loss no longer falls, and a resumed one ends at the same step."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from gptdist.checkpoint.manifest import read_manifest
from gptdist.telemetry.ledger import read_json_lines
from tests.support.datasets import run_tree, write_dataset
from tests.support.jobs import train_run
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks

END = 14
FOLLOWING = TestedLayout(2, 3, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("early")
    write_dataset(folder / "data" / "other", seed=9)
    return folder


def _tree(folder: Path, name: str, *, patience: int | None = 2, world_size: int = 1, **changes: Any) -> dict[str, Any]:
    """A run that makes progress in the first steps and none afterwards: the loss has to fall by 0.2 in two steps."""
    stopping = None if patience is None else {"patience_evaluations": patience, "min_delta": 0.2}
    return run_tree(
        folder,
        run_dir=str(folder / name),
        training={"train_steps": END, "early_stopping": stopping},
        optimizer={"lr": 3e-3},
        schedule={"warmup_steps": 1, "decay_steps": 5, "min_lr_ratio": 0.0},
        intervals={"eval_steps": 2, "save_steps": 1},
        **{"launch": {"ranks_per_node": world_size}, **changes},
    )


def _losses(run: Path, attempt: int = 1) -> dict[int, float]:
    records = read_json_lines(run / "metrics.jsonl")
    return {
        record["step"]: record["validation_loss"]
        for record in records
        if record["kind"] == "validation" and record["attempt"] == attempt
    }


def _expected_end(losses: dict[int, float], patience: int) -> tuple[int, int]:
    """Step that ends the run, and the one with the lowest loss."""
    lowest, lowest_step, since = float("inf"), 0, 0
    for step, loss in losses.items():
        if loss < lowest - 0.2:
            lowest, lowest_step, since = loss, step, 0
        else:
            since += 1
        if since == patience:
            return step, lowest_step
    raise AssertionError(f"these losses never end a run: {losses}")


def test_it_ends_by_its_rule_and_stays_ended_until_patience_is_raised(folder: Path) -> None:
    run_ranks(1, train_run, _tree(folder, "never", patience=None))
    whole = _losses(folder / "never")
    end, lowest_step = _expected_end(whole, 2)
    assert lowest_step < end < END - 2

    run = folder / "early"
    assert run_ranks(1, train_run, _tree(folder, "early")) == [(True, end)]
    assert _losses(run) == {step: loss for step, loss in whole.items() if step <= end}
    event = next(event for event in read_json_lines(run / "ledger.jsonl") if event["event"] == "early_stop")
    assert (event["step"], event["lowest_step"], event["evaluations_since"]) == (end, lowest_step, 2)
    assert event["lowest_loss"] == whole[lowest_step]

    assert run_ranks(1, train_run, _tree(folder, "early")) == [(True, end)], "says so, and trains no further"
    assert not _losses(run, attempt=2)

    later, _ = _expected_end(whole, 3)
    assert run_ranks(1, train_run, _tree(folder, "early", patience=3)) == [(True, later)]
    assert list(_losses(run, attempt=3)) == list(range(end + 2, later + 1, 2))


@pytest.mark.parametrize("resume_at", [3, 4, 5])
def test_a_resumed_run_ends_where_the_whole_one_did(folder: Path, resume_at: int) -> None:
    name, layout = "two-ranks", FOLLOWING
    tree = _tree(folder, name, world_size=2, parallel=layout.sections()["parallel"])
    run = folder / name
    if not run.exists():
        run_ranks(2, train_run, tree)
    checkpoints = run / "checkpoints"
    newest = max(checkpoints.glob("step_*"))
    end = read_manifest(newest).progress
    for step in range(resume_at + 1, end.step + 1):
        shutil.rmtree(checkpoints / f"step_{step:08d}")
    assert run_ranks(2, train_run, tree) == [(True, end.step)] * 2
    again = read_manifest(newest).progress
    assert again.lowest == end.lowest is not None
    assert again.validation_loss == end.validation_loss


def test_other_windows_are_not_compared(folder: Path) -> None:
    tree = _tree(folder, "windows")
    ((_, end),) = run_ranks(1, train_run, tree)
    other = {"validation": [{"name": "o", "path": str(folder / "data" / "other")}], "validation_set": "o"}
    ((_, step),) = run_ranks(1, train_run, tree | {"data": tree["data"] | other})
    assert step > end, "what was lowest on other windows ends nothing"
    before, after = (
        read_manifest(folder / "windows" / "checkpoints" / f"step_{at:08d}").progress.lowest for at in (end, step)
    )
    assert before is not None
    assert after is not None
    assert before.windows != after.windows
    assert after.step == end + 2, "the first one on these windows"
