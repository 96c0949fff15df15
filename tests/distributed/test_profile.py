"""A trace holds the steps that were asked for, of every rank."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from gptdist.config.run import RunConfig
from tests.support.datasets import run_tree
from tests.support.ranks import run_ranks


def run_whole(tree: dict[str, Any]) -> bool:
    """Train the run ``tree`` to its end."""
    from gptdist.train.build import build, join
    from gptdist.train.loop import train
    from gptdist.train.stop_signal import StopSignal

    config = RunConfig.from_tree(tree)
    mesh, device = join(config, local_rank=0)
    return not train(build(config, mesh, device, StopSignal()))


def names(path: Path) -> set[str]:
    with gzip.open(path, "rt") as file:
        return {event.get("name", "") for event in json.load(file)["traceEvents"]}


@pytest.mark.parametrize(("steps", "last", "traced"), [([2, 3], 3, {2, 3}), ([3, 90], 4, {3, 4}), ([4, 4], 4, {4})])
def test_steps_are_traced(steps: list[int], last: int, traced: set[int], tmp_path: Path) -> None:
    tree = run_tree(
        tmp_path,
        training={"train_steps": 4},
        telemetry={"profile_steps": steps},
        parallel={"tensor_parallel_size": 2},
        launch={"ranks_per_node": 2},
    )
    assert run_ranks(2, run_whole, tree) == [True, True]
    for rank in (0, 1):
        found = names(tmp_path / f"run/profile/steps_{steps[0]:08d}_{last:08d}_rank_{rank}.json.gz")
        assert {name for name in found if name.startswith("step ")} == {f"step {step}" for step in traced}
        assert any("mm" in name for name in found)
        assert any("gloo" in name for name in found), "no communication in the trace"
    assert len(list((tmp_path / "run/profile").iterdir())) == 2
