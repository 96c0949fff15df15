"""A gradient that is not finite ends the run before anything of it is saved, also where the loss looks well."""

from pathlib import Path
from typing import Any

import pytest

from gptdist.config.run import RunConfig
from tests.support.datasets import run_tree
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks


def poisoned(tree: dict[str, Any], value: float) -> tuple[str, int]:
    """Train with one gradient value of the third step replaced; return what ended the run, and the step it reached."""
    from gptdist.errors import TrainingError
    from gptdist.train.build import build, join
    from gptdist.train.loop import train
    from gptdist.train.stop_signal import StopSignal

    config = RunConfig.from_tree(tree)
    mesh, device = join(config, local_rank=0)
    run = build(config, mesh, device, StopSignal())
    parameter = run.parameters[-1].parameter
    parameter.register_hook(lambda gradient: gradient * value if run.state.step == 2 else gradient)
    try:
        train(run)
    except TrainingError as error:
        return str(error), run.state.step
    return "", run.state.step


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("layout", [TestedLayout(1, 0, 1), TestedLayout(2, 1, 1), TestedLayout(2, 3, 1)], ids=str)
def test_nothing_spoilt_is_saved(layout: TestedLayout, value: float, tmp_path: Path) -> None:
    tree = run_tree(tmp_path, intervals={"save_steps": 1}, **layout.sections())
    for said, step in run_ranks(layout.world_size, poisoned, tree, value):
        assert said.startswith("step 3: gradient norm is ")
        assert "on samples 16 to 23" in said
        assert step == 2
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").glob("step_*")) == [
        "step_00000001",
        "step_00000002",
    ]
    (said, step) = run_ranks(layout.world_size, poisoned, tree, 1.0)[0]
    assert (said, step) == ("", 6), "the same command resumes"
