"""A run whose spike is in its data goes back before it, passes it over, and is the run that never saw it."""

import json
from pathlib import Path
from typing import Any

import pytest

from gptdist.data.attempts import attempt_of_step, read_attempts
from tests.support.datasets import run_tree
from tests.support.jobs import open_run
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks

SAVED, END = 16, 20
BAD = range(136, 152)
"""Samples of random bytes: those of the steps 18 and 19. The first is skipped, the second leads back to step 16."""

GUARDS = {"window_steps": 4, "min_steps": 3, "max_z_score": 6.0, "max_skips": 1}


def with_planted_bytes(tree: dict[str, Any], skip_to: int | None) -> tuple[list[tuple[int, float]], str]:
    """Train with random bytes in the samples ``BAD``; return step and loss of each, and what ended it.

    Args:
        tree: of the run.
        skip_to: sample to go on with from the checkpoint, for the run that never sees the others.
    """
    import numpy as np

    from gptdist.errors import TrainingError
    from gptdist.train.loop import train

    run = open_run(tree)
    if skip_to is not None:
        run.state.consumed_samples = skip_to
    rows = run.data.rows

    def planted(first_sample: int, count: int) -> Any:
        found = rows(first_sample, count)
        for number, row in enumerate(found, first_sample):
            if number in BAD:
                row[:] = np.random.default_rng(number).integers(0, 256, len(row))
        return found

    run.data.rows = planted  # type: ignore[method-assign]  # the same bytes in whatever dataset
    said = ""
    try:
        train(run)
    except TrainingError as error:
        said = str(error)
    metrics = (run.config.folder / "metrics.jsonl").read_text().splitlines()
    records = [row for row in map(json.loads, metrics) if row["kind"] == "train"]
    return [(row["step"], row["loss"]) for row in records], said


@pytest.mark.parametrize("layout", [TestedLayout(1, 0, 1), TestedLayout(2, 3, 1), TestedLayout(2, 1, 2)], ids=str)
def test_it_recovers_without_a_hand(layout: TestedLayout, tmp_path: Path) -> None:
    tree = run_tree(
        tmp_path,
        training={"train_steps": END},
        schedule={"decay_steps": END},
        intervals={"save_steps": SAVED},
        guards=GUARDS,
        **layout.sections(),
    )
    seen, said = run_ranks(layout.world_size, with_planted_bytes, tree, None)[0]
    assert said == ""
    assert [step for step, _ in seen] == [*range(1, 20), *range(17, 21)]

    other = tree | {"run_dir": str(tmp_path / "never")}
    short = other | {"training": tree["training"] | {"train_steps": SAVED}}
    run_ranks(layout.world_size, with_planted_bytes, short, None)
    never, _ = run_ranks(layout.world_size, with_planted_bytes, other, BAD.stop)[0]
    assert seen[-4:] == never[-4:], "floats are compared bit for bit"

    events = [json.loads(line) for line in (tmp_path / "run/ledger.jsonl").read_text().splitlines()]
    (back,) = [event for event in events if event["event"] == "rewind"]
    assert (back["step"], back["to_step"], back["first_sample"], back["last_sample"]) == (19, 16, 128, 151)
    attempts = read_attempts(tmp_path / "run")
    assert attempt_of_step(tmp_path / "run", attempts, 18).samples_of_step(18) == list(range(160, 168))
    assert attempt_of_step(tmp_path / "run", attempts, 18, number=1).samples_of_step(18) == list(range(136, 144))
    dumped = [json.loads(line) for line in (tmp_path / "run/spikes/step_00000019_attempt_1.jsonl").open()]
    assert [one["sample"] for one in dumped] == list(range(144, 152))


def test_without_a_checkpoint_it_ends_and_says_why(tmp_path: Path) -> None:
    tree = run_tree(tmp_path, training={"train_steps": END}, guards=GUARDS)
    _, said = run_ranks(1, with_planted_bytes, tree, None)[0]
    assert "has no checkpoint from before step 18 to go back to; lower intervals.save_steps" in said
