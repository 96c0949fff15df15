"""Ranks that share the tokens of each sample: what the layouts' common test does not look at."""

from pathlib import Path
from typing import Any

import pytest

from tests.distributed.test_recompute import kept_bytes
from tests.support.datasets import GPT2, MODERN, run_tree
from tests.support.jobs import train_steps, validation_loss
from tests.support.layouts import ONE_RANK, TestedLayout
from tests.support.ranks import run_ranks

LOSS_TOLERANCE = 2e-6
"""fp32, sums in another order."""

NORM_TOLERANCE = 1e-5
RESUMED_TOLERANCE = 5e-6
BF16_TOLERANCE = 0.01
STEPS = 2

C1, C3 = (TestedLayout(2, stage, 1, context_parallel_size=2) for stage in (1, 3))
C2 = TestedLayout(4, 2, 1, context_parallel_size=2)
WIDE = TestedLayout(4, 3, 2, context_parallel_size=2)
TC3 = TestedLayout(4, 3, 2, sequence_parallel=True, context_parallel_size=2)
DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("context")


def _trained(folder: Path, name: str, layout: TestedLayout, until: int = STEPS, *save: int, **changes: Any):
    tree = run_tree(folder, run_dir=str(folder / name), **layout.sections(), **changes)
    seen = run_ranks(layout.world_size, train_steps, tree, until, *save)
    assert all(rank == seen[0] for rank in seen), "ranks disagree on loss or norm"
    return seen[0]


def _assert_equal(seen: list[Any], expected: list[Any]) -> None:
    assert [loss for _, loss, _ in seen] == pytest.approx([loss for _, loss, _ in expected], abs=LOSS_TOLERANCE)
    assert [norm for *_, norm in seen] == pytest.approx([norm for *_, norm in expected], rel=NORM_TOLERANCE)


@pytest.mark.parametrize(
    ("layout", "model"), [(C2, GPT2), (TC3, MODERN)], ids=lambda value: str(value) if value in (C2, TC3) else ""
)
def test_documents_and_masked_labels(folder: Path, layout: TestedLayout, model: dict[str, Any]) -> None:
    """Whether a token is of the same document is seen in the whole sample; labels count unevenly over the ranks."""
    data = {"separate_documents": True, "loss_mask": {"ignore_tokens": [*b"etaos "], "ignore_document_starts": True}}
    kind = "gpt2" if model is GPT2 else "modern"
    expected = _trained(folder, f"documents-{kind}-one-{layout}", ONE_RANK, model=model, data=data)
    _assert_equal(_trained(folder, f"documents-{kind}-{layout}", layout, model=model, data=data), expected)


@pytest.mark.parametrize("layout", [C1, WIDE], ids=str)
def test_validation_loss_and_bits_per_byte(folder: Path, layout: TestedLayout) -> None:
    expected = run_ranks(1, validation_loss, run_tree(folder, run_dir=str(folder / "eval-one")))[0]
    tree = run_tree(folder, run_dir=str(folder / f"eval-{layout}"), **layout.sections())
    for seen in run_ranks(layout.world_size, validation_loss, tree):
        assert seen == pytest.approx(expected, abs=LOSS_TOLERANCE)


@pytest.mark.parametrize(("layout", "precision"), [(C1, "fp32"), (C2, "bf16"), (C3, "bf16"), (TC3, "fp32")], ids=str)
def test_same_layout_resumes_bit_for_bit_with_dropout(folder: Path, layout: TestedLayout, precision: str) -> None:
    changes = {"model": GPT2 | DROPOUT, "training": {"precision": precision}}
    whole = _trained(folder, f"same-{layout}-{precision}", layout, 4, 2, **changes)
    assert _trained(folder, f"same-{layout}-{precision}", layout, 4, **changes) == whole[2:]


@pytest.mark.parametrize(("before", "after"), [(ONE_RANK, C1), (C3, ONE_RANK), (TC3, C1)], ids=str)
def test_other_layout_goes_on(folder: Path, before: TestedLayout, after: TestedLayout) -> None:
    whole = _trained(folder, f"{before}-{after}", before, 4, 2, model=MODERN)
    resumed = _trained(folder, f"{before}-{after}", after, 4, model=MODERN)
    assert [loss for _, loss, _ in resumed] == pytest.approx([loss for _, loss, _ in whole[2:]], abs=RESUMED_TOLERANCE)


def test_bf16_follows_fp32(folder: Path) -> None:
    expected = _trained(folder, "fp32", ONE_RANK)
    seen = _trained(folder, "bf16", C1, training={"precision": "bf16"})
    assert [loss for _, loss, _ in seen] == pytest.approx([loss for _, loss, _ in expected], abs=BF16_TOLERANCE)


@pytest.mark.parametrize("kind", ["attention", "full"])
def test_recomputed_activations_give_the_same_losses(folder: Path, kind: str) -> None:
    model = GPT2 | DROPOUT
    kept = _trained(folder, f"kept-{kind}", TC3, model=model)
    assert _trained(folder, f"recomputed-{kind}", TC3, model=model, memory={"recompute": kind}) == kept


def test_dropout_differs_between_the_ranks(folder: Path) -> None:
    """Tokens of the same sample must not be dropped alike; so masks are not those of one rank."""
    one = _trained(folder, "dropout-one", ONE_RANK, model=GPT2 | DROPOUT)
    seen = _trained(folder, "dropout-two", C1, model=GPT2 | DROPOUT)
    assert abs(seen[0][1] - one[0][1]) > 100 * LOSS_TOLERANCE


def test_a_rank_keeps_less(folder: Path) -> None:
    """Its own tokens' activations, and the keys and values of all."""
    kept = {}
    for size in (1, 2, 4):
        layout = TestedLayout(size, 1, 1, context_parallel_size=size)
        tree = run_tree(
            folder,
            model=GPT2 | {"seq_length": 256},
            run_dir=str(folder / f"kept-{size}"),
            batch={"global_batch_size": 2},
            **layout.sections(),
        )
        kept[size] = max(run_ranks(size, kept_bytes, tree))
    assert kept[2] < 0.75 * kept[1], kept
    assert kept[4] < 0.6 * kept[2], kept
