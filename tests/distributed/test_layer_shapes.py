"""Layers of different shapes: every layout gives the losses, gradient norms and gradients of one rank."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.datasets import GPT2, MODERN, SHAPES, run_tree
from tests.support.equality import STEPS, Trained, assert_same_training, train_on
from tests.support.jobs import train_steps
from tests.support.layouts import ONE_RANK, TestedLayout
from tests.support.ranks import run_ranks

OTHER_LAYOUT_TOLERANCE = 5e-6
"""fp32 losses after a resume on another layout, where sums are taken in another order."""

PRUNED = MODERN | {"num_layers": 4, "layer_shapes": SHAPES}
PRUNED_GPT2 = GPT2 | {"num_layers": 4, "layer_shapes": SHAPES, "hidden_dropout": 0.1, "attention_dropout": 0.1}

TENSOR_DATA = TestedLayout(4, 1, 2)
TENSOR = TestedLayout(2, 1, 2)
STAGES = TestedLayout(2, 1, 1, pipeline_parallel_size=2)
SEQUENCE_ZERO3 = TestedLayout(2, 3, 2, sequence_parallel=True)
SEQUENCE = TestedLayout(2, 1, 2, sequence_parallel=True)
CONTEXT = TestedLayout(2, 2, 1, context_parallel_size=2)
LAYOUTS = [TENSOR_DATA, STAGES, TestedLayout(2, 3, 1), SEQUENCE_ZERO3, CONTEXT]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layer_shapes")


def _tree(folder: Path, name: str, layout: TestedLayout, model: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return run_tree(folder, model=model, run_dir=str(folder / name), **layout.sections(), **changes)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Trained:
    return train_on(ONE_RANK, _tree(folder, "reference", ONE_RANK, PRUNED))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_layout_equals_one_rank(folder: Path, reference: Trained, layout: TestedLayout) -> None:
    assert_same_training(train_on(layout, _tree(folder, str(layout), layout, PRUNED)), reference)


def test_same_layout_resumes_bit_for_bit(folder: Path) -> None:
    tree = _tree(folder, "same-layout", SEQUENCE, PRUNED_GPT2)
    whole = run_ranks(2, train_steps, tree, 4, 2)[0]
    assert run_ranks(2, train_steps, tree, 4)[0] == whole[2:], "floats are compared bit for bit"


def test_muon_makes_each_layers_heads_orthogonal_on_every_layout(folder: Path) -> None:
    losses = []
    for layout in (ONE_RANK, TENSOR):
        tree = _tree(folder, f"muon-{layout}", layout, PRUNED, optimizer={"kind": "muon"})
        losses.append([loss for _, loss, _ in run_ranks(layout.world_size, train_steps, tree, STEPS)[0]])
    assert losses[1] == pytest.approx(losses[0], abs=OTHER_LAYOUT_TOLERANCE)


def test_layers_of_one_shape_are_the_model_without(folder: Path) -> None:
    model = MODERN | {"num_layers": 3}
    said = [{"layers": 2, "ffn_hidden_size": 96}, {"num_attention_heads": 4, "num_query_groups": 2}]
    trees = [_tree(folder, f"same-{len(more)}", ONE_RANK, model | more) for more in ({}, {"layer_shapes": said})]
    plain, shaped = (run_ranks(1, train_steps, tree, STEPS)[0] for tree in trees)
    assert shaped == plain, "floats are compared bit for bit"


@pytest.mark.parametrize("layout", [ONE_RANK, SEQUENCE], ids=str)
def test_recomputed_layers_give_the_same_losses(folder: Path, layout: TestedLayout) -> None:
    found = {}
    for kind in ("none", "attention", "mlp", "full") if layout == ONE_RANK else ("none", "mlp"):
        tree = _tree(folder, f"{kind}-{layout}", layout, PRUNED_GPT2, memory={"recompute": kind})
        found[kind] = run_ranks(layout.world_size, train_steps, tree, 2)[0]
    assert all(losses == found["none"] for losses in found.values()), found


@pytest.mark.parametrize(("before", "after"), [(TENSOR, ONE_RANK), (STAGES, TENSOR)], ids=str)
def test_a_run_goes_on_with_its_own_shapes_alone(folder: Path, before: TestedLayout, after: TestedLayout) -> None:
    name = f"{before}-to-{after}"
    whole = run_ranks(before.world_size, train_steps, _tree(folder, name, before, PRUNED), 4, 2)[0]
    changed = PRUNED | {"layer_shapes": [*SHAPES[:3], {"num_query_groups": 4, "ffn_hidden_size": 32}]}
    with pytest.raises(AssertionError, match=r"model\.layer_shapes.*a run keeps its model"):
        run_ranks(after.world_size, train_steps, _tree(folder, name, after, changed), 4)
    resumed = run_ranks(after.world_size, train_steps, _tree(folder, name, after, PRUNED), 4)[0]
    assert [loss for _, loss, _ in resumed] == pytest.approx(
        [loss for _, loss, _ in whole[2:]], abs=OTHER_LAYOUT_TOLERANCE
    )
