"""Comparison of a run with the same one on one rank: losses, gradient norms and every gradient."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gptdist.checkpoint.find import newest_whole
from gptdist.checkpoint.read import CheckpointReader
from tests.support.jobs import train_steps
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks

STEPS = 3

LOSS_TOLERANCE = 2e-6
"""fp32, sums in another order; 6e-8 was the largest difference seen."""

GRADIENT_TOLERANCE = 1e-5
"""Largest difference of a gradient, as a fraction of the tensor's largest value."""


class Trained(NamedTuple):
    """Some steps of a run."""

    steps: list[tuple[int, float, float]]
    """Number, loss and gradient norm of each."""

    reader: CheckpointReader
    """The checkpoint after the first step."""


def train_on(layout: TestedLayout, tree: dict[str, Any]) -> Trained:
    """Train ``STEPS`` steps of the run ``tree`` on the ranks of ``layout``, which must agree on every number."""
    seen = run_ranks(layout.world_size, train_steps, tree, STEPS, 1)
    assert all(rank == seen[0] for rank in seen), "ranks disagree on loss or norm"
    return Trained(seen[0], CheckpointReader(newest_whole(Path(tree["run_dir"]) / "checkpoints")[0]))


def assert_same_training(seen: Trained, expected: Trained) -> None:
    """Compare every number of two runs."""
    for (step, loss, norm), (_, expected_loss, expected_norm) in zip(seen.steps, expected.steps, strict=True):
        assert loss == pytest.approx(expected_loss, abs=LOSS_TOLERANCE), f"loss of step {step}"
        assert norm == pytest.approx(expected_norm, rel=GRADIENT_TOLERANCE), f"gradient norm of step {step}"
    assert sorted(seen.reader.tensor_names) == sorted(expected.reader.tensor_names)
    for name in expected.reader.tensor_names:
        # After one step Adam's first moment is the clipped gradient times 1 - beta1.
        entry = expected.reader.entry(name)
        span = {"outer": (0, entry.outer), "along": (0, entry.length)}
        ours, theirs = (one.reader.block(name, "exp_avg", **span) for one in (seen, expected))
        assert theirs.abs().max() > 0, f"{name} has no gradient"
        assert (ours - theirs).abs().max() <= GRADIENT_TOLERANCE * theirs.abs().max(), f"gradient of {name}"
