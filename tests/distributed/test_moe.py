"""Mixture of experts: every layout gives the losses, gradient norms and gradients of one rank."""

from pathlib import Path
from typing import Any

import pytest

from tests.distributed.test_drift import after_a_flip
from tests.support.datasets import MOE, run_tree
from tests.support.equality import Trained, assert_same_training, train_on
from tests.support.jobs import train_steps
from tests.support.layouts import EXPERT_LAYOUTS, ONE_RANK, SPLIT_EXPERT_LAYOUTS, TestedLayout
from tests.support.ranks import run_ranks

OTHER_TOLERANCE = 5e-6
"""fp32 losses after a resume on another layout, where sums are taken in another order."""

ZERO3 = TestedLayout(2, 3, 1)
TENSOR = TestedLayout(2, 0, 2)
TENSOR_ZERO3 = TestedLayout(2, 3, 2)
TENSOR_DATA = TestedLayout(4, 1, 2)
SEQUENCE_ZERO2 = TestedLayout(2, 2, 2, sequence_parallel=True)
SEQUENCE_ZERO3 = TestedLayout(2, 3, 2, sequence_parallel=True)
SPLIT = TestedLayout(4, 0, 1, expert_parallel_size=2)
SPLIT_ZERO1 = TestedLayout(4, 1, 1, expert_parallel_size=2)
SPLIT_IN_4 = TestedLayout(4, 2, 1, expert_parallel_size=4)
SPLIT_SEQUENCE = TestedLayout(4, 1, 2, sequence_parallel=True, expert_parallel_size=2)

EXPERT, ROUTER = "decoder.layers.1.mlp.experts.linear_fc2.weight", "decoder.layers.1.mlp.router.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("moe")


def _train(folder: Path, layout: TestedLayout, **changes: Any) -> Trained:
    tree = run_tree(folder, **{"model": MOE, "run_dir": str(folder / str(layout)), **layout.sections(), **changes})
    return train_on(layout, tree)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Trained:
    return _train(folder, ONE_RANK)


@pytest.mark.parametrize("layout", [*EXPERT_LAYOUTS, *SPLIT_EXPERT_LAYOUTS], ids=str)
def test_layout_equals_one_rank(folder: Path, reference: Any, layout: TestedLayout) -> None:
    assert_same_training(_train(folder, layout), reference)


@pytest.mark.parametrize("layout", [ZERO3, SEQUENCE_ZERO2], ids=str)
def test_recomputed_experts_give_the_same_losses(folder: Path, reference: Any, layout: TestedLayout) -> None:
    kept, _ = _train(folder, layout, run_dir=str(folder / f"kept-{layout}"))
    for kind in ("mlp", "full"):
        seen, _ = _train(folder, layout, run_dir=str(folder / f"{kind}-{layout}"), memory={"recompute": kind})
        assert seen == kept, kind


BF16 = {"training": {"precision": "bf16"}}


@pytest.mark.parametrize(
    ("layout", "changes"),
    [(TENSOR, {}), (SEQUENCE_ZERO3, {}), (TENSOR_DATA, BF16), (SPLIT, {}), (SPLIT_ZERO1, BF16)],
    ids=["zero0-tp2", "zero3-tp2-sp", "zero1-dp2-tp2-bf16", "zero0-dp4-ep2", "zero1-dp4-ep2-bf16"],
)
def test_same_layout_resumes_bit_for_bit(folder: Path, layout: TestedLayout, changes: dict[str, Any]) -> None:
    name = str(folder / f"same-{layout}-{'bf16' if changes else 'fp32'}")
    tree = run_tree(folder, **{"model": MOE, "run_dir": name, **layout.sections(), **changes})
    whole = run_ranks(layout.world_size, train_steps, tree, 4, 2)[0]
    assert run_ranks(layout.world_size, train_steps, tree, 4)[0] == whole[2:]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (TENSOR_DATA, ZERO3),
        (SEQUENCE_ZERO3, ONE_RANK),
        (TestedLayout(2, 0, 1), SEQUENCE_ZERO2),
        (SPLIT_IN_4, ZERO3),
        (TENSOR_ZERO3, SPLIT_ZERO1),
        (SPLIT, SPLIT_SEQUENCE),
    ],
    ids=str,
)
def test_other_layout_goes_on(folder: Path, before: TestedLayout, after: TestedLayout) -> None:
    run_dir = str(folder / f"{before}-to-{after}")
    first = run_tree(folder, model=MOE, run_dir=run_dir, **before.sections())
    whole = run_ranks(before.world_size, train_steps, first, 4, 2)[0]
    second = run_tree(folder, model=MOE, run_dir=run_dir, **after.sections())
    resumed = run_ranks(after.world_size, train_steps, second, 4)[0]
    assert [loss for _, loss, _ in resumed] == pytest.approx([loss for _, loss, _ in whole[2:]], abs=OTHER_TOLERANCE)


def test_split_experts_have_the_same_norm_in_bf16(folder: Path) -> None:
    """Another optimizer of DeepSpeed is at work there, with a norm of its own."""
    found = []
    for layout in (TestedLayout(2, 1, 1), TestedLayout(2, 1, 1, expert_parallel_size=2)):
        tree = run_tree(folder, model=MOE, run_dir=str(folder / f"bf16-{layout}"), **BF16, **layout.sections())
        ranks = run_ranks(2, train_steps, tree, 2)
        assert ranks[0] == ranks[1], "ranks disagree on loss or norm"
        found.append(ranks[0])
    for (_, loss, norm), (_, expected_loss, expected_norm) in zip(*found, strict=True):
        assert loss == pytest.approx(expected_loss, rel=2e-3)
        assert norm == pytest.approx(expected_norm, rel=5e-3), "experts are counted twice or not at all"


@pytest.mark.parametrize(
    ("name", "rank", "what"),
    [
        (None, -1, ""),
        (EXPERT, 3, f"{EXPERT} differs between its data-parallel ranks 1, 3"),
        (ROUTER, 2, f"{ROUTER} on rank 2 is not what its data-parallel ranks 0, 1, 3 hold"),
    ],
)
def test_drift_of_split_experts_is_named(folder: Path, name: str | None, rank: int, what: str) -> None:
    layout = TestedLayout(4, 1, 1, expert_parallel_size=2)
    tree = run_tree(folder, model=MOE, run_dir=str(folder / f"drift-{rank}"), **layout.sections())
    found = run_ranks(4, after_a_flip, tree, name, rank)
    assert len(set(found)) == 1, "ranks say different things"
    assert found[0].startswith(f"step 1: {what}") if what else found[0] == ""
