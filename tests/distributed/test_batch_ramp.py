"""Every step of a batch-size ramp is the step of a plain run with that batch, on every layout."""

from pathlib import Path

import pytest

from tests.support.datasets import run_tree
from tests.support.jobs import open_run, train_steps
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks

LOSS_TOLERANCE = 2e-6
"""fp32, sums in another order."""

RAMP = [{"until_samples": 6, "global_batch_size": 2}, {"until_samples": 13, "global_batch_size": 4}]
SIZES = [2, 2, 2, 4, 4, 8, 8]
"""Of the steps. Forwards a step change behind a number of them that the new one does not divide."""

SAVE, SECOND_STAGE = 3, 5
ONE_RANK = TestedLayout(1, 0, 1)
CONTEXT = TestedLayout(2, 1, 1, context_parallel_size=2)
LAYOUTS = [TestedLayout(1, 1, 1), *(TestedLayout(2, stage, 1) for stage in range(4)), TestedLayout(4, 2, 2), CONTEXT]
CASES = [(layout, "fp32") for layout in LAYOUTS] + [(layout, "bf16") for layout in LAYOUTS[2:5]]


def _tree(folder: Path, name: str, layout: TestedLayout, batch=None, **changes):
    batch = {"global_batch_size": 8, "micro_batch_size": 1, "ramp": RAMP} | (batch or {})
    return run_tree(folder, batch=batch, run_dir=str(folder / name), **layout.sections(), **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ramp")


@pytest.fixture(scope="module")
def expected(folder: Path):
    return run_ranks(1, train_steps, _tree(folder, "one", ONE_RANK), len(SIZES))[0]


@pytest.mark.parametrize(("layout", "precision"), CASES, ids=str)
def test_a_ramp_is_plain_steps_and_resumes_within(folder: Path, expected, layout: TestedLayout, precision: str) -> None:
    name, training = f"{layout}-{precision}", {"precision": precision}
    tree = _tree(folder, name, layout, training=training)
    whole = run_ranks(layout.world_size, train_steps, tree, len(SIZES), SAVE)[0]
    plain = _tree(folder, name, layout, {"global_batch_size": 4, "ramp": []}, training=training)
    assert run_ranks(layout.world_size, train_steps, plain, SECOND_STAGE)[0] == whole[SAVE:SECOND_STAGE]
    if precision == "bf16":
        return
    assert run_ranks(layout.world_size, train_steps, tree, len(SIZES))[0] == whole[SAVE:], "bit for bit"
    for (_, loss, norm), (_, expected_loss, expected_norm) in zip(whole, expected, strict=True):
        assert loss == pytest.approx(expected_loss, abs=LOSS_TOLERANCE)
        assert norm == pytest.approx(expected_norm, rel=1e-4)


def test_a_ramp_with_offloaded_gradients(folder: Path, expected) -> None:
    """They are accumulated apart from the others, and the first steps have one forward."""
    tree = _tree(folder, "offload", LAYOUTS[3], memory={"offload_optimizer": "cpu"})
    seen = run_ranks(2, train_steps, tree, len(SIZES))[0]
    assert [norm for *_, norm in seen] == pytest.approx([norm for *_, norm in expected], rel=1e-4)


def test_the_sizes_are_those_of_the_ramp_and_go_on_on_another_layout(folder: Path, expected) -> None:
    tree = _tree(folder, "sizes", ONE_RANK)
    first = run_ranks(1, _sizes, tree, SAVE)[0]
    wide = run_ranks(2, _sizes, _tree(folder, "sizes", TestedLayout(2, 3, 1)), len(SIZES))[0]
    assert [size for size, _ in first + wide] == SIZES
    assert [loss for _, loss in first + wide] == pytest.approx([loss for _, loss, _ in expected], abs=LOSS_TOLERANCE)


def _sizes(tree, until: int) -> list[tuple[int, float]]:
    """Train to step ``until`` and save; return the batch and the loss of each step."""
    from gptdist.train.loop import save, train_step

    run = open_run(tree)
    seen = []
    while run.state.step < until:
        result = train_step(run)
        run.state.advance(result)
        seen.append((result.samples, result.loss))
    save(run, is_final=True)
    return seen
