"""A run whose spike is in its data goes back before it, passes it over, and is the run that never saw it."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from gptdist.checkpoint.audit import audit
from gptdist.data.attempts import attempt_of_step, read_attempts
from tests.support.datasets import run_tree
from tests.support.jobs import open_run
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks

SAVED, END = 16, 20
BAD = range(136, 152)
"""Samples of random bytes: those of the steps 18 and 19. The first is skipped, the second leads back to step 16."""

GUARDS = {"window_steps": 4, "min_steps": 3, "max_z_score": 6.0, "max_skips": 1}


def with_planted_bytes(
    tree: dict[str, Any], skip_to: int | None, bad: tuple[range, ...] = (BAD,)
) -> tuple[list[tuple[int, float]], str]:
    """Train with random bytes in the samples ``bad``; return step and loss of each, and what ended it.

    Args:
        tree: of the run.
        bad: where they are.
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
            if any(number in some for some in bad):
                row[:] = np.random.default_rng(number).integers(0, 256, len(row))
        return found

    run.data.rows = planted  # type: ignore[method-assign]  # the same bytes in whatever dataset
    said = ""
    try:
        with run.keeper or contextlib.nullcontext():
            train(run)
    except TrainingError as error:
        said = str(error)
    metrics = (run.config.folder / "metrics.jsonl").read_text().splitlines()
    records = [row for row in map(json.loads, metrics) if row["kind"] == "train"]
    return [(row["step"], row["loss"]) for row in records], said


LOSS_TOLERANCE = 2e-5
"""fp32 losses of 20 steps, sums in another order."""

LAYOUTS = [
    TestedLayout(1, 0, 1),
    TestedLayout(2, 3, 1),
    TestedLayout(2, 1, 2),
    TestedLayout(2, 1, 1, pipeline_parallel_size=2),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
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
    found = audit(tmp_path / "run")
    assert not found.problems
    assert (found.line[-1].passed_over, found.consumed_samples) == (range(128, 152), 184)
    attempts = read_attempts(tmp_path / "run")
    assert attempt_of_step(tmp_path / "run", attempts, 18).samples_of_step(18) == list(range(160, 168))
    assert attempt_of_step(tmp_path / "run", attempts, 18, number=1).samples_of_step(18) == list(range(136, 144))
    dumped = [json.loads(line) for line in (tmp_path / "run/spikes/step_00000019_attempt_1.jsonl").open()]
    assert sorted(one["sample"] for one in dumped) == list(range(144, 152))


def test_without_a_checkpoint_it_ends_and_says_why(tmp_path: Path) -> None:
    tree = run_tree(tmp_path, training={"train_steps": END}, guards=GUARDS)
    _, said = run_ranks(1, with_planted_bytes, tree, None)[0]
    assert "has no checkpoint from before step 18 to go back to; lower intervals.save_steps" in said


TWICE = (BAD, range(176, 192))
"""The second one comes in the steps 20 and 21, after the run has gone back to step 16 and on with sample 152."""


def _events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "ledger.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def test_a_second_spike_is_passed_over_too_and_a_limit_ends_the_run(tmp_path: Path) -> None:
    def tree(name: str, max_rewinds: int) -> dict[str, Any]:
        return run_tree(
            tmp_path,
            run_dir=str(tmp_path / name),
            training={"train_steps": 24},
            schedule={"decay_steps": 24},
            intervals={"save_steps": SAVED},
            guards=GUARDS | {"max_rewinds": max_rewinds},
        )

    seen, said = run_ranks(1, with_planted_bytes, tree("twice", 2), None, TWICE)[0]
    assert said == ""
    assert [step for step, _ in seen] == [*range(1, 20), *range(17, 22), *range(17, 25)]
    backs = _events(tmp_path / "twice", "rewind")
    found = [(back["step"], back["to_step"], back["first_sample"], back["last_sample"]) for back in backs]
    assert found == [(19, 16, 128, 151), (21, 16, 152, 191)]
    assert [back["rewinds"] for back in backs] == [1, 2]

    for _ in range(2):  # the second one begins after the first rewind, which its checkpoint remembers
        _, said = run_ranks(1, with_planted_bytes, tree("once", 1), None, TWICE)[0]
        assert said.startswith("step 21: loss ")
        assert "on samples 184 to 191, and 2 of the last 4 steps were skipped, 1 may be; the run went back" in said
        assert "the run went back to a checkpoint 1 times, guards.max_rewinds allows 1; look at " in said
        assert "spikes, lower optimizer.lr or raise guards.max_z_score; the same command resumes" in said
    assert len(_events(tmp_path / "once", "rewind")) == 1
    more, said = run_ranks(1, with_planted_bytes, tree("once", 2), None, TWICE)[0]
    assert said == ""
    assert more[-8:] == seen[-8:], "a higher limit lets it go on to the same losses, bit for bit"


def test_within_a_length_ramp_a_pipeline_goes_back_as_one_rank_does(tmp_path: Path) -> None:
    losses = []
    for layout in (LAYOUTS[0], LAYOUTS[-1]):
        tree = run_tree(
            tmp_path,
            run_dir=str(tmp_path / str(layout)),
            training={"train_steps": END},
            schedule={"decay_steps": END},
            intervals={"save_steps": SAVED},
            batch={"seq_length_ramp": [{"until_samples": 160, "seq_length": 16}]},
            guards=GUARDS,
            **layout.sections(),
        )
        seen, said = run_ranks(layout.world_size, with_planted_bytes, tree, None)[0]
        assert said == ""
        assert [step for step, _ in seen] == [*range(1, 20), *range(17, 21)]
        losses.append([loss for _, loss in seen])
    assert losses[1] == pytest.approx(losses[0], abs=LOSS_TOLERANCE)
