"""Zeros of a pruned model stay zero on every layout, in weights and moments, and the rest trains as by hand."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from gptdist.checkpoint.find import newest_whole
from gptdist.checkpoint.read import CheckpointReader
from gptdist.compress.prune.options import WeightOptions
from gptdist.compress.prune.weights import prune_weights
from gptdist.model.parameters import is_hidden_matrix
from tests.support.datasets import LLAMA, MOE, run_tree
from tests.support.jobs import open_run, step_until, train_steps
from tests.support.layouts import ONE_RANK, TestedLayout
from tests.support.ranks import run_ranks

STEPS = 4
LOSS_TOLERANCE = 5e-6
"""Sums in another order."""

LAYOUTS = [
    TestedLayout(2, 1, 1),
    TestedLayout(2, 3, 1),
    TestedLayout(2, 2, 2),
    TestedLayout(4, 3, 2, sequence_parallel=True),
    TestedLayout(2, 1, 1, context_parallel_size=2),
    TestedLayout(2, 1, 1, pipeline_parallel_size=2),
]

OTHERS: dict[str, tuple[TestedLayout, dict[str, Any]]] = {
    "adafactor": (TestedLayout(2, 3, 1), {"optimizer": {"kind": "adafactor"}}),
    "lion": (TestedLayout(2, 1, 2), {"optimizer": {"kind": "lion", "lr": 1e-3}}),
    "bf16": (TestedLayout(2, 3, 1), {"training": {"precision": "bf16"}}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained for two steps, and the same at half of its weights."""
    folder = tmp_path_factory.mktemp("zeros")
    run_ranks(1, train_steps, run_tree(folder, model=LLAMA, run_dir=str(folder / "dense")), 2, 2)
    prune_weights(folder / "dense", folder / "pruned", WeightOptions(ratio=0.5))
    return folder


def _tree(folder: Path, name: str, layout: TestedLayout = ONE_RANK, **changes: Any) -> dict[str, Any]:
    training = {"init_from": str(folder / "pruned"), "keep_zeros": True} | changes.pop("training", {})
    run_dir = str(folder / name)
    return run_tree(folder, model=LLAMA, run_dir=run_dir, training=training, **layout.sections(), **changes)


def masked_by_hand(tree: dict[str, Any], until: int) -> list[tuple[int, float, float]]:
    """Do the same on one rank, with gradients that are masked when all of a step's are there."""
    run = open_run(tree)
    masks = {name: one.detach() != 0 for name, one in run.engine.module.named_parameters() if is_hidden_matrix(name)}
    update = run.engine.update

    def masked(*arguments: Any) -> None:
        for name, parameter in run.engine.module.named_parameters():
            if name in masks:
                parameter.grad *= masks[name]
        update(*arguments)

    run.engine.update = masked
    return step_until(run, until)


@pytest.fixture(scope="module")
def by_hand(folder: Path) -> list[tuple[int, float, float]]:
    return run_ranks(1, masked_by_hand, _tree(folder, "by-hand", training={"keep_zeros": False}), STEPS)[0]


def _saved(run_dir: Path) -> CheckpointReader:
    found = newest_whole(run_dir / "checkpoints")[0]
    assert found is not None
    return CheckpointReader(found)


def _require_held(pruned: Path, found: CheckpointReader, matrices: int = 8) -> None:
    begun = CheckpointReader(pruned)
    assert found.manifest.progress.zeros == begun.manifest.progress.zeros
    assert len(found.manifest.progress.zeros) == matrices
    for name in found.manifest.progress.zeros:
        before, entry = begun.weight(name), found.entry(name)
        zeros = before == 0
        assert int(zeros.sum()) == zeros.numel() // 2
        for state in entry.states:
            values = found.block(name, state, outer=(0, entry.outer), along=(0, entry.length)).view(entry.shape)
            assert not values[zeros].any(), f"{state} of {name}"
        assert (found.weight(name) != before)[~zeros].float().mean() > 0.99, name


def test_one_rank_is_bit_for_bit_what_masks_by_hand_do_and_resumes(folder: Path, by_hand) -> None:
    assert run_ranks(1, train_steps, _tree(folder, "whole"), STEPS, STEPS)[0] == by_hand
    _require_held(folder / "pruned", _saved(folder / "whole"))
    run_ranks(1, train_steps, _tree(folder, "torn"), 2, 2)
    assert run_ranks(1, train_steps, _tree(folder, "torn"), STEPS, STEPS)[0] == by_hand[2:]
    whole, torn = _saved(folder / "whole"), _saved(folder / "torn")
    for name in whole.tensor_names:
        assert torch.equal(whole.weight(name), torn.weight(name)), name


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_zeros_stay_on_every_layout(folder: Path, by_hand, layout: TestedLayout) -> None:
    tree = _tree(folder, str(layout), layout)
    half = run_ranks(layout.world_size, train_steps, tree, 2, 2)[0]
    other = _tree(folder, str(layout), ONE_RANK)  # the second half on another layout
    for found, expected in zip(half + run_ranks(1, train_steps, other, STEPS, STEPS)[0], by_hand, strict=True):
        assert found == pytest.approx(expected, abs=LOSS_TOLERANCE), "step, loss, norm of what is left"
    _require_held(folder / "pruned", _saved(folder / str(layout)))


@pytest.mark.parametrize("name", OTHERS)
def test_zeros_stay_with_other_optimizers_and_numbers(folder: Path, name: str) -> None:
    layout, changes = OTHERS[name]
    tree = _tree(folder, name, layout, **{section: dict(values) for section, values in changes.items()})
    run_ranks(layout.world_size, train_steps, tree, 2, 2)
    _require_held(folder / "pruned", _saved(folder / name))


def test_zeros_of_split_experts_stay(folder: Path) -> None:
    layout = TestedLayout(2, 1, 1, expert_parallel_size=2)
    dense = run_tree(folder, model=MOE, run_dir=str(folder / "experts"))
    run_ranks(1, train_steps, dense, 1, 1)
    prune_weights(folder / "experts", folder / "pruned-experts", WeightOptions(pattern="2:4"))
    training = {"init_from": str(folder / "pruned-experts"), "keep_zeros": True}
    tree = run_tree(folder, model=MOE, run_dir=str(folder / "split"), training=training, **layout.sections())
    run_ranks(2, train_steps, tree, 2, 2)
    _require_held(folder / "pruned-experts", _saved(folder / "split"), matrices=12)


def lose_a_zero(tree: dict[str, Any]) -> str:
    from gptdist.errors import TrainingError
    from gptdist.train.loop import save

    run = open_run(tree)
    step_until(run, 1)
    matrix = dict(run.engine.module.named_parameters())["decoder.layers.1.mlp.linear_fc2.weight"]
    with torch.no_grad():
        matrix[0, matrix[0] == 0] = 1e-3
    try:
        save(run)
    except TrainingError as error:
        return str(error)
    return "saved"


def test_a_zero_that_is_lost_is_not_saved(folder: Path) -> None:
    message = run_ranks(1, lose_a_zero, _tree(folder, "lost"))[0]
    expected = (
        r"step 1: decoder.layers.1.mlp.linear_fc2.weight has 1\d+ zeros, 1536 when the run began; memory was damaged"
    )
    assert re.match(expected, message), message
    assert not list((folder / "lost").glob("checkpoints/*"))


def test_without_it_they_are_gone_and_cannot_be_held_any_more(folder: Path) -> None:
    loose = _tree(folder, "loose", training={"keep_zeros": False})
    run_ranks(1, train_steps, loose, 1, 1)
    found = _saved(folder / "loose")
    assert found.manifest.progress.zeros == {}
    matrix = found.weight("decoder.layers.1.mlp.linear_fc2.weight")
    assert int((matrix == 0).sum()) < 10
    with pytest.raises(AssertionError, match="the checkpoint of step 1 was saved without it, its zeros are gone"):
        run_ranks(1, train_steps, loose | {"training": loose["training"] | {"keep_zeros": True}}, 2)
