"""A bit that flips on one rank is named: which tensor, which rank."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.datasets import LLAMA, run_tree
from tests.support.jobs import open_run
from tests.support.layouts import LAYOUTS, TestedLayout
from tests.support.ranks import run_ranks

STAGES = TestedLayout(4, 1, 1, pipeline_parallel_size=2)
NORM, MATRIX = "decoder.layers.1.pre_mlp_layernorm.weight", "decoder.layers.0.mlp.linear_fc2.weight"


def after_a_flip(tree: dict[str, Any], name: str | None, rank: int) -> str:
    """Train a step, flip the lowest bit of one value of ``name`` on ``rank``, and return what the check says."""
    import torch

    from gptdist.errors import TrainingError
    from gptdist.train.drift import check_equal_weights
    from gptdist.train.loop import train_step

    run = open_run(tree)
    run.state.advance(train_step(run))
    if run.mesh.rank == rank:
        (parameter,) = [local.parameter for local in run.parameters if local.logical.name == name]
        held = getattr(parameter, "ds_tensor", parameter).detach().view(torch.int32).view(-1)
        held[3] ^= 1
    try:
        check_equal_weights(run.parameters, run.mesh, 1, run.engine.stage.shared_embedding)
    except TrainingError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout.world_size > 1], ids=str)
def test_ranks_hold_the_same(layout: TestedLayout, tmp_path: Path) -> None:
    model = LLAMA if layout.tensor_parallel_size < 4 else {}
    tree = run_tree(tmp_path, model=model, **layout.sections())
    assert run_ranks(layout.world_size, after_a_flip, tree, None, -1) == [""] * layout.world_size


@pytest.mark.parametrize(
    ("layout", "name", "rank", "what"),
    [
        (TestedLayout(4, 1, 1), MATRIX, 2, "on rank 2 is not what its data-parallel ranks 0, 1, 3 hold"),
        (TestedLayout(4, 2, 1), NORM, 1, "on rank 1 is not what its data-parallel ranks 0, 2, 3 hold"),
        (TestedLayout(4, 0, 2), MATRIX, 3, "differs between its data-parallel ranks 1, 3"),
        (
            TestedLayout(4, 1, 1, context_parallel_size=2),
            MATRIX,
            3,
            "on rank 3 is not what its data- and context-parallel ranks 0, 1, 2 hold",
        ),
        (
            TestedLayout(4, 1, 2, context_parallel_size=2),
            NORM,
            1,
            "differs between its data- and context-parallel ranks 1, 3",
        ),
        (TestedLayout(2, 1, 2), NORM, 1, "differs between its tensor-parallel ranks 0, 1"),
        (TestedLayout(4, 3, 2), NORM, 3, "differs between its tensor-parallel ranks 2, 3"),
        (STAGES, NORM, 2, "differs between its data-parallel ranks 2, 3"),
    ],
    ids=str,
)
def test_a_flipped_bit_is_named(layout: TestedLayout, name: str, rank: int, what: str, tmp_path: Path) -> None:
    tree = run_tree(tmp_path, model=LLAMA, **layout.sections())
    found = run_ranks(layout.world_size, after_a_flip, tree, name, rank)
    assert len(set(found)) == 1, "ranks say different things"
    assert found[0].startswith(f"step 1: {name} {what}; memory or a message was damaged")


def after_a_flip_of_the_copy(tree: dict[str, Any]) -> str:
    """Train a step, flip a bit of the last stage's copy of the embedding, and return what the check says."""
    import torch

    from gptdist.errors import TrainingError
    from gptdist.train.drift import check_equal_weights
    from gptdist.train.loop import train_step

    run = open_run(tree)
    run.state.advance(train_step(run))
    stage = run.engine.stage
    check_equal_weights(run.parameters, run.mesh, 1, stage.shared_embedding)
    if run.mesh.place.pp_rank and run.mesh.place.dp_rank == 0:
        assert stage.shared_embedding is not None
        stage.shared_embedding.view(torch.int32).view(-1)[3] ^= 1
    try:
        check_equal_weights(run.parameters, run.mesh, 1, stage.shared_embedding)
    except TrainingError as error:
        return str(error)
    return ""


def test_the_last_stages_copy_of_the_embedding_is_compared(tmp_path: Path) -> None:
    found = run_ranks(4, after_a_flip_of_the_copy, run_tree(tmp_path, **STAGES.sections()))
    assert len(set(found)) == 1, "ranks say different things"
    expected = "embedding.word_embeddings.weight differs between the first and last stage, ranks 0, 2; memory or"
    assert found[0].startswith(f"step 1: {expected}")


def test_what_one_rank_holds_alone_may_change(tmp_path: Path) -> None:
    tree = run_tree(tmp_path, model=LLAMA, **TestedLayout(2, 1, 2).sections())
    assert run_ranks(2, after_a_flip, tree, MATRIX, 1) == ["", ""]
