"""A pipeline of stages gives the losses and gradients of one rank, and its checkpoints belong to no layout."""

from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from tests.support.datasets import GPT2, LLAMA, MODERN, run_tree
from tests.support.equality import LOSS_TOLERANCE, STEPS, Trained, assert_same_training, train_on
from tests.support.jobs import train_steps, validation_loss
from tests.support.layouts import ONE_RANK, PIPELINE_LAYOUTS, TestedLayout
from tests.support.ranks import run_ranks

OTHER_LAYOUT_TOLERANCE = 5e-6
"""fp32 losses of 3 steps after a resume on another layout, where sums are taken in another order."""

BF16_TOLERANCE = 2e-3
"""Losses of 3 steps with a relative precision of 2^-8 in between."""

SAVE, END = 2, 4
MODELS = {name: shape | {"num_layers": 4} for name, shape in {"gpt2": GPT2, "llama": LLAMA, "modern": MODERN}.items()}
DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}


def layout(world_size: int, zero_stage: int, tensor: int, stages: int, **others: Any) -> TestedLayout:
    return TestedLayout(world_size, zero_stage, tensor, pipeline_parallel_size=stages, **others)


TWO = layout(2, 1, 1, 2)
EQUAL = list(zip(PIPELINE_LAYOUTS, cycle(MODELS)))
"""The last two have fewer micro batches than stages, see ``_tree``."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pipeline")


def _tree(folder: Path, name: str, layout: TestedLayout, model: dict[str, Any], **changes: Any) -> dict[str, Any]:
    batch = {"micro_batch_size": 4} if layout.pipeline_parallel_size == 4 else {}
    sections = layout.sections() | {"batch": batch} | changes
    return run_tree(folder, model=model, run_dir=str(folder / name), **sections)


def _train(folder: Path, layout: TestedLayout, model: str) -> Trained:
    tree = _tree(folder, f"{model}-{layout}", layout, MODELS[model])
    return train_on(layout, tree)


@pytest.fixture(scope="module")
def reference(folder: Path):
    return {model: _train(folder, ONE_RANK, model) for model in MODELS}


@pytest.mark.parametrize(("layout", "model"), EQUAL, ids=[f"{layout}-{model}" for layout, model in EQUAL])
def test_layout_equals_one_rank(folder: Path, reference, layout: TestedLayout, model: str) -> None:
    assert_same_training(_train(folder, layout, model), reference[model])


RICH = {"data": {"separate_documents": True, "loss_mask": {"ignore_tokens": [32]}}, "training": {"z_loss": 1e-3}}
RAMP = [{"until_samples": 2, "global_batch_size": 2}, {"until_samples": 6, "global_batch_size": 4}]
VARIANTS: dict[str, dict[str, Any]] = {
    "dropout": {"model": MODELS["gpt2"] | DROPOUT},
    "dropout-recomputed": {"model": MODELS["gpt2"] | DROPOUT, "memory": {"recompute": "full", "recompute_layers": 3}},
    "dropout-mlp-recomputed": {"model": MODELS["gpt2"] | DROPOUT, "memory": {"recompute": "mlp"}},
    "documents-masks-z-loss": {"model": MODELS["modern"], **RICH},
    "batch-ramp": {"model": MODELS["gpt2"], "batch": {"global_batch_size": 8, "micro_batch_size": 1, "ramp": RAMP}},
    "offload": {"model": MODELS["gpt2"], "memory": {"offload_optimizer": "cpu"}},
    "muon": {"model": MODELS["llama"], "optimizer": {"kind": "muon"}},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_switches_mean_the_same_on_every_stage(folder: Path, variant: str) -> None:
    changes = VARIANTS[variant]
    losses = []
    for one in (TestedLayout(1, 1, 1), TWO):
        tree = _tree(folder, f"{variant}-{one}", one, **changes)
        losses.append([loss for _, loss, _ in run_ranks(one.world_size, train_steps, tree, STEPS)[0]])
    assert losses[1] == pytest.approx(losses[0], abs=LOSS_TOLERANCE)


SAME = [(TWO, "fp32"), (TWO, "bf16"), (layout(4, 2, 1, 2), "bf16"), (layout(4, 1, 2, 2), "fp32")]


@pytest.mark.parametrize(("layout", "precision"), SAME, ids=str)
def test_same_layout_resumes_bit_for_bit(folder: Path, layout: TestedLayout, precision: str) -> None:
    name = f"same-{layout}-{precision}"
    tree = _tree(folder, name, layout, MODELS["gpt2"] | DROPOUT, training={"precision": precision})
    whole = run_ranks(layout.world_size, train_steps, tree, END, SAVE)[0]
    resumed = run_ranks(layout.world_size, train_steps, tree, END)[0]
    assert resumed == whole[SAVE:], "floats are compared bit for bit"


PAIRS = [
    (ONE_RANK, TWO, "gpt2"),
    (TWO, ONE_RANK, "gpt2"),
    (TWO, layout(4, 1, 1, 4), "llama"),
    (layout(4, 1, 1, 4), layout(4, 1, 2, 2), "gpt2"),
    (layout(4, 2, 1, 2), TestedLayout(2, 3, 2), "modern"),
]


@pytest.mark.parametrize(("before", "after", "model"), PAIRS, ids=str)
def test_another_number_of_stages_goes_on_with_the_same_samples(folder: Path, before, after, model: str) -> None:
    name = f"{before}-{after}-{model}"
    trees = [_tree(folder, name, one, MODELS[model], batch={"micro_batch_size": 2}) for one in (before, after)]
    whole = run_ranks(before.world_size, train_steps, trees[0], END, SAVE)[0]
    resumed = run_ranks(after.world_size, train_steps, trees[1], END)[0]
    assert [loss for _, loss, _ in resumed] == pytest.approx(
        [loss for _, loss, _ in whole[SAVE:]], abs=OTHER_LAYOUT_TOLERANCE
    )


def test_bf16_is_near_one_rank(folder: Path) -> None:
    losses = []
    for one in (TestedLayout(1, 1, 1), TWO):
        tree = _tree(folder, f"bf16-{one}", one, MODELS["gpt2"], training={"precision": "bf16"})
        losses.append([loss for _, loss, _ in run_ranks(one.world_size, train_steps, tree, STEPS)[0]])
    assert losses[1] == pytest.approx(losses[0], abs=BF16_TOLERANCE)


def test_validation_is_that_of_one_rank(folder: Path, reference) -> None:
    expected = run_ranks(1, validation_loss, _tree(folder, f"gpt2-{ONE_RANK}", ONE_RANK, MODELS["gpt2"]))[0]
    wide = layout(4, 1, 1, 2)
    found = run_ranks(4, validation_loss, _tree(folder, f"gpt2-{ONE_RANK}", wide, MODELS["gpt2"]))
    assert all(one == found[0] for one in found)
    assert found[0] == pytest.approx(expected, abs=LOSS_TOLERANCE)
