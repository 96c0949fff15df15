"""Activations computed again: the same losses to the last bit, dropout on, and less kept in between."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.datasets import GPT2, MODERN, run_tree
from tests.support.jobs import open_run, train_steps
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks

STEPS = 2
DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
KINDS: dict[str, dict[str, Any]] = {
    "none": {},
    "attention": {"recompute": "attention"},
    "mlp": {"recompute": "mlp"},
    "one-layer": {"recompute": "full", "recompute_layers": 1},
    "full": {"recompute": "full"},
}
LAYOUTS = [
    TestedLayout(1, 1, 1),
    TestedLayout(2, 3, 1),
    TestedLayout(2, 2, 2),
    TestedLayout(2, 1, 2, sequence_parallel=True),
    TestedLayout(2, 3, 2, sequence_parallel=True),
]


def kept_bytes(tree: dict[str, Any]) -> int:
    """Return the bytes that autograd keeps of a forward, parameters left out."""
    import torch

    from gptdist.data.batches import Batch

    run = open_run(tree)
    batch = Batch.of(run.data.rows(0, 2), run.device.torch_device, run.rules, run.mesh.context_part)
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = run.engine.deepspeed(batch.tokens, batch.positions(), None, labels=batch.labels)
    assert loss.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("model", [GPT2 | DROPOUT, MODERN], ids=["gpt2", "modern"])
def test_losses_are_those_of_kept_activations(layout: TestedLayout, model: dict[str, Any], tmp_path: Path) -> None:
    found = {}
    for kind, memory in KINDS.items():
        tree = run_tree(tmp_path, model=model, memory=memory, run_dir=str(tmp_path / kind), **layout.sections())
        found[kind] = run_ranks(layout.world_size, train_steps, tree, STEPS)[0]
    assert all(losses == found["none"] for losses in found.values()), found


def test_less_is_kept(tmp_path: Path) -> None:
    kept = {}
    for kind, memory in KINDS.items():
        tree = run_tree(tmp_path, memory=memory, run_dir=str(tmp_path / kind), batch={"global_batch_size": 2})
        kept[kind] = run_ranks(1, kept_bytes, tree)[0]
    assert kept["full"] < kept["one-layer"] < kept["none"], kept
    assert kept["full"] < kept["mlp"] < 0.7 * kept["none"], kept
    assert kept["attention"] < kept["none"], kept
