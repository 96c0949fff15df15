"""The time of a step by part, and memory, as the records show them."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.datasets import run_tree
from tests.support.jobs import open_run
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks

pytestmark = pytest.mark.alone

PARTS = ("data", "forward_backward", "communication", "optimizer", "other")
SLEEP_SECONDS = 0.3
WAIT_SHARE = 0.8
"""Of a wait that is longer than the rest of a step, what is found at least: a busy machine delays the others too."""


def train_slowly(tree: dict[str, Any], slow_rank: int, slow_part: str) -> None:
    """Train with one rank that sleeps in one part of every step."""
    import torch.distributed as dist

    from gptdist.train import loop

    run = open_run(tree)
    owner, name = {
        "data": (run.data, "rows"),
        "forward_backward": (run.engine.deepspeed, "backward"),
        "optimizer": (run.engine, "update"),
        "evaluation": (loop, "evaluate"),
        "checkpoint": (run.saver, "save"),
    }[slow_part]
    original = getattr(owner, name)

    def slow(*arguments: Any, **options: Any) -> Any:
        if dist.get_rank() == slow_rank:
            time.sleep(SLEEP_SECONDS)
        return original(*arguments, **options)

    setattr(owner, name, slow)
    try:
        with run.clock.watching_collectives():
            loop.train(run)
    finally:
        setattr(owner, name, original)


def records(tree: dict[str, Any], layout: TestedLayout, slow_rank: int, slow_part: str) -> list[dict[str, Any]]:
    run_ranks(layout.world_size, train_slowly, tree, slow_rank, slow_part)
    lines = (Path(tree["run_dir"]) / "metrics.jsonl").read_text().splitlines()
    found = [record for record in map(json.loads, lines) if record["kind"] == "train"]
    for record in found:
        assert sum(record[f"{part}_seconds"] for part in PARTS) == pytest.approx(record["step_seconds"])
        assert record["peak_memory_gib"] > 0.05
    return found


def tree_of(folder: Path, layout: TestedLayout) -> dict[str, Any]:
    return run_tree(
        folder,
        training={"train_steps": 3},
        batch={"global_batch_size": 4, "micro_batch_size": 2},
        intervals={"log_steps": 1, "eval_steps": 2, "save_steps": 2},
        **layout.sections(),
    )


@pytest.mark.parametrize("part", ["data", "forward_backward", "optimizer"])
def test_time_is_found_in_the_part_that_took_it(tmp_path: Path, part: str) -> None:
    layout = TestedLayout(1, 1, 1)
    calls = {"data": 2, "forward_backward": 2, "optimizer": 1}[part]
    for record in records(tree_of(tmp_path, layout), layout, 0, part)[1:]:
        assert record[f"{part}_seconds"] >= calls * SLEEP_SECONDS
        rest = [record[f"{other}_seconds"] for other in PARTS if other != part]
        assert max(rest) < calls * SLEEP_SECONDS
        assert record["communication_seconds"] == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("layout", [TestedLayout(2, 0, 1), TestedLayout(2, 3, 1), TestedLayout(2, 1, 2)], ids=str)
def test_waiting_for_a_slower_rank_is_communication(tmp_path: Path, layout: TestedLayout) -> None:
    calls = 2 // (layout.world_size // layout.tensor_parallel_size)
    for record in records(tree_of(tmp_path, layout), layout, 1, "data")[1:]:
        assert record["data_seconds"] < SLEEP_SECONDS, "rank 0 does not sleep"
        assert record["communication_seconds"] >= WAIT_SHARE * calls * SLEEP_SECONDS
        assert record["slowest_rank_seconds"] >= calls * SLEEP_SECONDS, "rank 1 does"
        assert record["step_seconds"] - record["communication_seconds"] < record["slowest_rank_seconds"]


@pytest.mark.parametrize("part", ["evaluation", "checkpoint"])
def test_what_happens_between_steps_is_no_part_of_them(tmp_path: Path, part: str) -> None:
    layout = TestedLayout(2, 1, 1)
    first, second, third = records(tree_of(tmp_path, layout), layout, 1, part)
    assert max(first[f"{part}_seconds"], second[f"{part}_seconds"]) < 0.1 * SLEEP_SECONDS
    assert third[f"{part}_seconds"] >= WAIT_SHARE * SLEEP_SECONDS, "rank 0 waits for rank 1 there"
    assert third["communication_seconds"] < SLEEP_SECONDS
