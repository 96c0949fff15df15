"""A triage computes the gradient that the trainer had, from a checkpoint, in one process."""

import math
from pathlib import Path
from typing import Any

import pytest

from gptdist.checkpoint.find import step_folder_name
from gptdist.config.run import RunConfig
from tests.support.datasets import GPT2, LLAMA, MOE, run_tree
from tests.support.jobs import train_steps
from tests.support.ranks import run_ranks

SAVED = 2
TOLERANCE = 2e-5
"""Of norms in fp32 whose sums are taken in another order."""

Config = dict[str, Any]


def _probe(tree: Config, first: int) -> tuple[float, float, dict[str, float], dict[int, float | None]]:
    """Return loss, norm, norms by part and samples' losses of the step behind the checkpoint, as a triage has them."""
    from gptdist.checkpoint.read import CheckpointReader
    from gptdist.data.sources import TrainingData
    from gptdist.train.inference import single_process_mesh
    from gptdist.triage.gradients import GradientProbe

    config = RunConfig.from_tree(tree)
    reader = CheckpointReader(config.checkpoints_folder / step_folder_name(SAVED))
    probe = GradientProbe(config, reader, TrainingData(config), single_process_mesh(), "cpu")
    samples = range(first, first + config.batch_sizes.at(first))
    probe.losses(samples)  # no trace of it may be in the gradient, nor one of another batch
    probe.gradient(9, range(samples.stop, samples.stop + 8))
    found = probe.gradient(SAVED + 1, samples)
    return found.loss, found.grad_norm, found.by_part, probe.losses(samples)


def _dense(tree: Config, first: int) -> tuple[dict[str, float], dict[int, float]]:
    """Return the norm of each parameter's gradient, by plain autograd on the whole batch, and each sample's loss."""
    import torch

    from gptdist.checkpoint.read import CheckpointReader
    from gptdist.data.sources import TrainingData
    from gptdist.train.inference import load_model, single_process_mesh

    config = RunConfig.from_tree(tree)
    reader = CheckpointReader(config.checkpoints_folder / step_folder_name(SAVED))
    model = load_model(reader, single_process_mesh())
    rows = torch.tensor([row.tolist() for row in TrainingData(config).rows(first, 8)])
    positions = torch.arange(rows.shape[1] - 1).expand(8, -1)
    logits = model(rows[:, :-1], positions, None).float()
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="none").mean(1)
    losses.mean().backward()
    norms = {name: float(one.grad.double().norm()) for name, one in model.named_parameters() if one.grad is not None}
    return norms, {first + index: float(loss) for index, loss in enumerate(losses)}


DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
RUNS = {
    "dropout, two replicas, clipped": (2, {"model": GPT2 | DROPOUT, "optimizer": {"lr": 3e-3, "max_grad_norm": 0.1}}),
    "masked labels, ramps, recomputed": (
        1,
        {
            "model": dict(LLAMA),
            "memory": {"recompute": "full"},
            "training": {"z_loss": 1e-3},
            "data": {"loss_mask": {"ignore_tokens": [101, 116]}},
            "batch": {"seq_length_ramp": [{"until_samples": 64, "seq_length": 16}]},
        },
    ),
    "experts on two tensor-parallel ranks": (2, {"model": MOE, "parallel": {"tensor_parallel_size": 2}}),
}


PARTS = {
    ".self_attention.": "attention",
    ".mlp.": "mlp",
    "final_layernorm": "final norm",
    "layernorm": "norms",
    "embedding": "embedding",
    "output_layer": "head",
}


@pytest.mark.parametrize("name", RUNS)
def test_the_norm_is_what_the_trainer_logged(name: str, tmp_path: Path) -> None:
    ranks, changes = RUNS[name]
    tree = run_tree(tmp_path, **changes)
    _, loss, norm = run_ranks(ranks, train_steps, tree, SAVED + 1, SAVED)[0][-1]
    ((found_loss, found_norm, by_part, _),) = run_ranks(1, _probe, tree, SAVED * 8)
    assert found_loss == pytest.approx(loss, rel=TOLERANCE)
    assert found_norm == pytest.approx(norm, rel=TOLERANCE)
    assert math.hypot(*by_part.values()) == pytest.approx(found_norm, rel=1e-9)


def test_norms_by_part_and_losses_of_samples_are_those_of_plain_autograd(tmp_path: Path) -> None:
    tree = run_tree(tmp_path, model=dict(LLAMA))
    run_ranks(1, train_steps, tree, SAVED + 1, SAVED)
    ((_, _, by_part, losses),) = run_ranks(1, _probe, tree, SAVED * 8)
    ((norms, dense_losses),) = run_ranks(1, _dense, tree, SAVED * 8)
    expected: dict[str, float] = {}
    for name, norm in norms.items():
        part = next(part for word, part in PARTS.items() if word in name)
        key = f"layer {name.split('.')[2]} {part}" if ".layers." in name else part
        expected[key] = math.hypot(expected.get(key, 0.0), norm)
    assert by_part == pytest.approx(expected, rel=TOLERANCE)
    assert losses == pytest.approx(dense_losses, rel=TOLERANCE)
