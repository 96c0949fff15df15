"""Activations that autograd keeps, counted, against the formula; recomputation within a budget of bytes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gptdist.config.activations import LayerActivations, LayerSizes
from gptdist.config.recomputation import StageActivations, least_bytes, recomputed
from gptdist.config.run import RunConfig
from tests.support.datasets import GPT2, LLAMA, MODERN, MOE, SHAPES, run_tree
from tests.support.jobs import open_run, train_steps
from tests.support.kept import KeptBytes
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks

HIDDEN_DROPOUT, DROPOUT = {"hidden_dropout": 0.1}, {"hidden_dropout": 0.1, "attention_dropout": 0.1}
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "gpt2-dropout": GPT2 | DROPOUT,
    "gpt2-qk-norm": GPT2 | HIDDEN_DROPOUT | {"qk_norm": True, "activation": "gelu"},
    "gpt2-banded": GPT2 | {"local_attention_window": 5},
    "llama": LLAMA,
    "neox": GPT2 | {"position_embedding": "rope", "rotary_fraction": 0.5},
    "llama-dropout": LLAMA | DROPOUT,
    "llama-learned": LLAMA | {"position_embedding": "learned"},
    "modern": MODERN,
    "pruned": MODERN | HIDDEN_DROPOUT | {"num_layers": 4, "layer_shapes": SHAPES},
    "modern-dropout": MODERN | DROPOUT,
}
MOES: list[dict[str, Any]] = [
    MOE,
    MOE | {"moe": {**MOE["moe"], "normalize_weights": False, "router_z_loss": 0.0}},
    MOE | {"moe": {**MOE["moe"], "aux_loss": 0.0, "router_z_loss": 0.0}},
    GPT2 | HIDDEN_DROPOUT | {"add_bias": False, "moe": {"num_experts": 4, "experts_per_token": 1}},
]
MOE_LAYOUTS = [
    TestedLayout(1, 1, 1),
    TestedLayout(2, 1, 2),
    TestedLayout(2, 1, 2, sequence_parallel=True),
    TestedLayout(2, 1, 1, expert_parallel_size=2),
]
FORWARD_LAYOUTS = [
    TestedLayout(1, 1, 1),
    TestedLayout(2, 1, 2),
    TestedLayout(2, 1, 2, sequence_parallel=True),
    TestedLayout(2, 1, 1, context_parallel_size=2),
]
SPARE = 1.04
"""At most so far above what is counted: attention and feed-forward part of a layer are not computed again at once, and
what waits in a pipeline for its gradient is not kept by autograd."""
DATA: dict[str, Any] = {"tokenizer": "t", "sources": [{"path": "s", "weight": 1.0}]}
BATCH, STEPS = {"global_batch_size": 8, "micro_batch_size": 2}, {"train_steps": 1}
UNLIKE_SPARE = 1.12
"""The same where the widest attention and the widest feed-forward part are not in one layer."""

BUDGET_LAYOUTS = [
    TestedLayout(1, 1, 1),
    TestedLayout(2, 2, 1, pipeline_parallel_size=2),
    TestedLayout(2, 1, 2, sequence_parallel=True),
    TestedLayout(2, 3, 1),
]


def variants(folder: Path, layout: TestedLayout) -> Iterator[dict[str, Any]]:
    """Yield configs: every model, format and mask with each way to compute again on one rank, fewer on two."""
    ways = ("none", "attention", "mlp", "full") if layout.world_size == 1 else ("none", "full")
    for model in MODELS.values():
        for precision, documents in (("fp32", False), ("bf16", True)):
            for way in ways:
                yield run_tree(
                    folder,
                    model=model,
                    memory={"recompute": way},
                    training={"precision": precision},
                    data={"separate_documents": documents},
                    **layout.sections(),
                )


def kept_of_forwards(trees: list[dict[str, Any]]) -> list[int]:
    """Return the bytes that are kept after a forward pass of each model."""
    from dataclasses import replace

    import torch

    from gptdist.train.build import build_model, join
    from gptdist.train.randomness import seed_micro_batch

    mesh, device = join(RunConfig.from_tree(trees[0]), local_rank=0)
    found = []
    for tree in trees:
        config = RunConfig.from_tree(tree)
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[config.training.precision]
        model = build_model(config, mesh, replace(device, dtype=dtype))
        seed_micro_batch(1, 0, mesh.place, 0)
        size, length = config.batch.micro_batch_size, config.model.seq_length // mesh.layout.context_parallel_size
        tokens, positions = torch.ones(size, length, dtype=torch.long), torch.arange(length).repeat(size, 1)
        mask = None
        if config.data.separate_documents:
            mask = torch.ones(size, 1, length, config.model.seq_length, dtype=torch.bool)
        with KeptBytes(model) as kept:
            loss = model(tokens, positions, mask, labels=tokens)
        assert loss.requires_grad
        found.append(kept.now - _mask_bytes(config, mask))
        del loss
    return found


def _mask_bytes(config: RunConfig, mask: Any) -> int:
    """Return bytes of the documents' mask where it is kept itself; it belongs to the batch."""
    return 0 if mask is None or config.memory.recompute in ("none", "mlp") else int(mask.nbytes)


def stage_of(tree: dict[str, Any], stage: int = 0) -> tuple[int, int, int]:
    """Return by the formula what a micro batch keeps, what is there at once, and the least that is possible."""
    config = RunConfig.from_tree(tree)
    share = config.rank_share()
    activations = StageActivations.of(config.model, config.parallel, share, stage)
    again = recomputed(config.memory, config.model, config.parallel, share, stage)
    return activations.kept(again), activations.peak(again), least_bytes(activations)


@pytest.mark.parametrize("layout", FORWARD_LAYOUTS, ids=str)
def test_what_is_kept_is_what_the_formula_says(layout: TestedLayout, tmp_path: Path) -> None:
    trees = list(variants(tmp_path, layout))
    found = run_ranks(layout.world_size, kept_of_forwards, trees)
    for tree, kept in zip(trees, found[-1], strict=True):  # the last rank: of context-parallel ranks the first has less
        assert kept == stage_of(tree)[0], (tree["model"], tree["memory"], tree["training"])


@pytest.mark.parametrize("layout", MOE_LAYOUTS, ids=str)
def test_experts_keep_what_the_formula_says_of_even_choices(layout: TestedLayout, tmp_path: Path) -> None:
    """However unevenly ranks' experts are chosen, all ranks together keep that."""
    trees = [
        run_tree(
            tmp_path, model=model, memory={"recompute": way}, training={"precision": precision}, **layout.sections()
        )
        for model in MOES
        for precision in ("fp32", "bf16")
        for way in ("none", "mlp", "full")
    ]
    found = run_ranks(layout.world_size, kept_of_forwards, trees)
    for tree, *kept in zip(trees, *found, strict=True):
        assert sum(kept) == stage_of(tree)[0] * layout.world_size, (tree["model"], tree["memory"], tree["training"])


def test_experts_that_get_more_keep_more() -> None:
    config = RunConfig.from_tree({"name": "test", "model": MOE, "data": DATA, "batch": BATCH, "training": STEPS})
    even = config.rank_share(on_gpu=True)
    kept = [
        LayerActivations.of(config.model, LayerSizes.of(config.model, 1), replace(even, expert_imbalance=factor)).mlp
        for factor in (1.0, 2.0)
    ]
    pairs, value_bytes = even.tokens * 2, 2
    assert kept[1] - kept[0] == pairs * (2 * 32 + 4 * 48 + 1) * value_bytes


def peak_of_steps(tree: dict[str, Any], steps: int) -> tuple[list[float], int, int]:
    """Train ``steps``; return the losses, the most bytes that were kept at once, and the stage."""
    from gptdist.train.loop import train_step

    run = open_run(tree)
    losses = []
    with KeptBytes(run.engine.module) as kept:
        for _ in range(steps):
            result = train_step(run)
            run.state.advance(result)
            losses.append(result.loss)
    return losses, kept.peak, run.mesh.place.pp_rank


@pytest.mark.parametrize("layout", BUDGET_LAYOUTS, ids=str)
def test_a_budget_is_kept_and_losses_stay(layout: TestedLayout, tmp_path: Path) -> None:
    _keeps_budgets(layout, tmp_path, MODERN | DROPOUT | {"num_layers": 4}, SPARE)


def test_a_budget_is_kept_by_layers_of_different_shapes(tmp_path: Path) -> None:
    _keeps_budgets(
        TestedLayout(1, 1, 1), tmp_path, MODERN | DROPOUT | {"num_layers": 4, "layer_shapes": SHAPES}, UNLIKE_SPARE
    )


def _keeps_budgets(layout: TestedLayout, tmp_path: Path, model: dict[str, Any], spare: float) -> None:
    plain = run_tree(tmp_path, model=model, **layout.sections())
    expected = [loss for _, loss, _ in run_ranks(layout.world_size, train_steps, plain, 2)[0]]
    stages = range(layout.pipeline_parallel_size)
    least = max(stage_of(plain, stage)[2] for stage in stages)
    most = max(stage_of(plain, stage)[1] for stage in stages)
    for part in (0.0, 0.4, 0.8):
        budget = least + int(part * (most - least))
        memory = {"recompute": "budget", "activation_bytes": budget}
        tree = run_tree(tmp_path, model=model, memory=memory, run_dir=str(tmp_path / f"{part}"), **layout.sections())
        for losses, peak, stage in run_ranks(layout.world_size, peak_of_steps, tree, 2):
            assert losses == expected
            predicted = stage_of(tree, stage)[1]
            assert predicted <= budget
            if layout.zero_stage < 3:  # there, weights come and go, and are counted too
                assert peak <= predicted < spare * peak, (part, stage, peak, predicted)
