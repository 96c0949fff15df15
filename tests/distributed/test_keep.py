"""A run with rules for its checkpoints: what stays, what a resume and a rewind then find."""

import json
from pathlib import Path

import pytest

from gptdist.checkpoint.find import step_folders, step_of
from gptdist.checkpoint.verify import verify
from tests.distributed.test_rewind import END, GUARDS, with_planted_bytes
from tests.support.datasets import run_tree
from tests.support.jobs import train_run
from tests.support.ranks import run_ranks


def kept_steps(folder: Path) -> list[int]:
    folders = step_folders(folder / "run/checkpoints")
    assert all(not verify(one) for one in folders)
    return [step_of(one) for one in folders]


@pytest.mark.parametrize("world_size", [1, 2])
def test_rules_over_two_attempts(world_size: int, tmp_path: Path) -> None:
    tree = run_tree(
        tmp_path,
        training={"train_steps": 8},
        launch={"ranks_per_node": world_size},
        intervals={"save_steps": 1, "eval_steps": 2},
        checkpoints={"keep": {"last": 2, "every_steps": 5, "best": 1}},
    )
    short = tree | {"training": tree["training"] | {"train_steps": 4}}
    run_ranks(world_size, train_run, short)
    assert kept_steps(tmp_path) == [4, 3]
    assert run_ranks(world_size, train_run, tree)[0] == (True, 8)
    assert kept_steps(tmp_path) == [8, 7, 5], "the loss falls: the best is the last"
    events = [json.loads(line) for line in (tmp_path / "run/ledger.jsonl").read_text().splitlines()]
    deleted = [step for event in events if event["event"] == "checkpoints_deleted" for step in event["steps"]]
    assert sorted(deleted) == [1, 2, 3, 4, 6]


def test_a_rewind_finds_its_checkpoint_whatever_the_rules(tmp_path: Path) -> None:
    """Steps 18 and 19 are skipped, and a checkpoint is saved after each: the one of step 17 is needed."""
    tree = run_tree(
        tmp_path,
        training={"train_steps": END},
        schedule={"decay_steps": END},
        intervals={"save_steps": 1},
        guards=GUARDS,
        checkpoints={"keep": {"last": 1}},
    )
    seen, said = run_ranks(1, with_planted_bytes, tree, None)[0]
    assert said == ""
    assert [step for step, _ in seen] == [*range(1, 20), 18, 19, 20]
    assert kept_steps(tmp_path) == [20]
