"""Every layout gives the losses, gradient norms and gradients of one rank."""

from pathlib import Path

import pytest
import torch

from tests.support.datasets import GPT2, LLAMA, MODERN, run_tree
from tests.support.equality import (
    GRADIENT_TOLERANCE,
    LOSS_TOLERANCE,
    STEPS,
    Trained,
    assert_same_training,
    train_on,
)
from tests.support.jobs import train_steps, validation_loss
from tests.support.layouts import LAYOUTS, ONE_RANK, WIDE_CONTEXT_LAYOUTS, TestedLayout
from tests.support.ranks import run_ranks

MODELS = {"gpt2": GPT2, "llama": LLAMA, "modern": MODERN}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layouts")


def _train(folder: Path, layout: TestedLayout, model: str, **changes) -> Trained:
    tree = run_tree(
        folder, model=MODELS[model], run_dir=str(folder / f"{model}-{layout}"), **layout.sections(), **changes
    )
    return train_on(layout, tree)


@pytest.fixture(scope="module")
def reference(folder: Path):
    return {model: _train(folder, ONE_RANK, model) for model in MODELS}


CASES = [
    (layout, model)
    for layout in LAYOUTS
    for model, shape in MODELS.items()
    if shape.get("num_query_groups", layout.tensor_parallel_size) % layout.tensor_parallel_size == 0
] + [(layout, "modern") for layout in (TestedLayout(1, 2, 1), TestedLayout(1, 3, 1), *WIDE_CONTEXT_LAYOUTS)]


@pytest.mark.parametrize(("layout", "model"), CASES, ids=[f"{layout}-{model}" for layout, model in CASES])
def test_layout_equals_one_rank(folder: Path, reference, layout: TestedLayout, model: str) -> None:
    assert_same_training(_train(folder, layout, model), reference[model])


OTHER_FAMILIES = {
    "qwen2": LLAMA | {"add_qkv_bias": True},
    "neox": GPT2 | {"position_embedding": "rope", "rotary_fraction": 0.5, "activation": "gelu"},
}


@pytest.mark.parametrize("model", OTHER_FAMILIES)
def test_biases_of_queries_alone_and_partly_turned_heads_are_split(folder: Path, model: str) -> None:
    layouts = (ONE_RANK, TestedLayout(2, 1, 2, sequence_parallel=True))
    section = OTHER_FAMILIES[model]
    runs = [
        run_tree(folder, model=section, run_dir=str(folder / f"{model}-{one}"), **one.sections()) for one in layouts
    ]
    expected, seen = (train_on(one, tree) for one, tree in zip(layouts, runs, strict=True))
    assert_same_training(seen, expected)


@pytest.mark.parametrize("layout", [LAYOUTS[2], LAYOUTS[4], LAYOUTS[6]], ids=str)
def test_dropout_is_the_same_on_every_number_of_replicas(folder: Path, layout: TestedLayout) -> None:
    """Masks depend on the samples; attention weights are split by tensor parallelism, so only hidden ones there."""
    dropout = {"hidden_dropout": 0.1, "attention_dropout": 0.0 if layout.tensor_parallel_size > 1 else 0.1}
    trees = [
        run_tree(folder, model=GPT2 | dropout, run_dir=str(folder / f"dropout-{layout}-{one}"), **one.sections())
        for one in (TestedLayout(1, 1, 1), layout)
    ]
    expected = run_ranks(1, train_steps, trees[0], STEPS)[0]
    seen = run_ranks(layout.world_size, train_steps, trees[1], STEPS)[0]
    plain = run_ranks(1, train_steps, run_tree(folder, run_dir=str(folder / f"plain-{layout}")), STEPS)[0]
    assert [loss for _, loss, _ in seen] == pytest.approx([loss for _, loss, _ in expected], abs=LOSS_TOLERANCE)
    assert abs(seen[0][1] - plain[0][1]) > 100 * LOSS_TOLERANCE, "dropout does nothing"


@pytest.mark.parametrize("layout", [LAYOUTS[4], LAYOUTS[6], TestedLayout(2, 1, 2, sequence_parallel=True)], ids=str)
def test_validation_loss_does_not_depend_on_the_layout(folder: Path, layout: TestedLayout) -> None:
    """Five windows a source do not divide by two replicas of two: one replica runs out first."""
    expected = run_ranks(1, validation_loss, run_tree(folder, run_dir=str(folder / "eval-one")))[0]
    tree = run_tree(folder, run_dir=str(folder / f"eval-{layout}"), **layout.sections())
    for seen in run_ranks(layout.world_size, validation_loss, tree):
        assert seen == pytest.approx(expected, abs=LOSS_TOLERANCE)


@pytest.mark.parametrize("layout", [LAYOUTS[2], LAYOUTS[11], TestedLayout(4, 1, 2, sequence_parallel=True)], ids=str)
def test_documents_are_kept_apart_on_every_layout(folder: Path, layout: TestedLayout) -> None:
    apart = {"separate_documents": True}
    trees = [
        run_tree(folder, data=data, run_dir=str(folder / f"apart-{layout}-{name}"), **one.sections())
        for name, one, data in (("one", ONE_RANK, apart), ("layout", layout, apart), ("together", ONE_RANK, {}))
    ]
    expected, seen, together = (
        run_ranks(int(tree["launch"]["ranks_per_node"]), train_steps, tree, STEPS)[0] for tree in trees
    )
    for (_, loss, norm), (_, expected_loss, expected_norm) in zip(seen, expected, strict=True):
        assert loss == pytest.approx(expected_loss, abs=LOSS_TOLERANCE)
        assert norm == pytest.approx(expected_norm, rel=GRADIENT_TOLERANCE)
    assert abs(together[0][1] - expected[0][1]) > 10 * LOSS_TOLERANCE, "nothing was kept apart"


BF16_TOLERANCE = 0.01
"""bf16 keeps 8 bits: losses around 5.5 round by 0.02; sums in another order move them by less."""


@pytest.mark.parametrize("layout", [LAYOUTS[0], LAYOUTS[2], LAYOUTS[3], LAYOUTS[4], LAYOUTS[6]], ids=str)
def test_bf16_follows_fp32(folder: Path, reference, layout: TestedLayout) -> None:
    tree = run_tree(folder, training={"precision": "bf16"}, run_dir=str(folder / f"bf16-{layout}"), **layout.sections())
    seen = run_ranks(layout.world_size, train_steps, tree, STEPS)[0]
    expected, _ = reference["gpt2"]
    assert [loss for _, loss, _ in seen] == pytest.approx([loss for _, loss, _ in expected], abs=BF16_TOLERANCE)
    assert seen != expected, "not bf16 at all"


def test_accumulated_micro_batches_equal_one_large_batch(folder: Path) -> None:
    trees = [
        run_tree(folder, batch={"micro_batch_size": size}, run_dir=str(folder / f"micro-{size}")) for size in (8, 1)
    ]
    large, small = (run_ranks(1, train_steps, tree, STEPS)[0] for tree in trees)
    assert [loss for _, loss, _ in small] == pytest.approx([loss for _, loss, _ in large], abs=LOSS_TOLERANCE)
    assert [norm for *_, norm in small] == pytest.approx([norm for *_, norm in large], rel=GRADIENT_TOLERANCE)


def test_clipping_bounds_the_update_and_reports_the_norm_before_it(folder: Path) -> None:
    losses = {}
    for clip in (0.0, 1e-3, 1.0):
        for zero in (0, 1):
            tree = run_tree(
                folder,
                optimizer={"lr": 3e-3, "max_grad_norm": clip, "eps": 1e-3},
                parallel={"zero_stage": zero},
                run_dir=str(folder / f"clip-{clip}-{zero}"),
            )
            losses[clip, zero] = run_ranks(1, train_steps, tree, STEPS)[0]
        assert losses[clip, 0][-1][1] == pytest.approx(losses[clip, 1][-1][1], abs=LOSS_TOLERANCE)
    assert losses[0.0, 0][0][2] == pytest.approx(losses[1e-3, 0][0][2]), "the norm is the one before clipping"
    assert losses[1e-3, 0][-1][1] > losses[1.0, 0][-1][1] > losses[0.0, 0][-1][1] - 1e-3, "clipping slows learning"


def test_gradients_differ_when_a_rank_is_left_out(folder: Path, reference) -> None:
    """The comparison above can fail: half of the batch gives other numbers."""
    tree = run_tree(folder, batch={"global_batch_size": 4}, run_dir=str(folder / "half"))
    seen = run_ranks(1, train_steps, tree, 1)[0]
    assert abs(seen[0][1] - reference["gpt2"][0][0][1]) > 100 * LOSS_TOLERANCE
    assert torch.tensor(seen[0][2]).item() != pytest.approx(reference["gpt2"][0][0][2], rel=GRADIENT_TOLERANCE)
