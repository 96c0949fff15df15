"""Process groups, what draws the same random numbers, and what is decayed."""

import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.support.datasets import LLAMA, run_tree
from tests.support.jobs import open_run
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks


def _draws(first_sample: int) -> tuple[list[float], list[float]]:
    from datetime import timedelta

    from megatron.core.tensor_parallel.random import get_cuda_rng_tracker

    from gptdist.mesh.groups import make_mesh
    from gptdist.mesh.layout import Layout
    from gptdist.train.randomness import seed_micro_batch

    mesh = make_mesh(Layout(2, 1, dist.get_world_size() // 2, 1), timedelta(seconds=60))
    torch.manual_seed(mesh.rank)  # whatever was drawn before does not matter
    seed_micro_batch(7, first_sample, mesh.place)
    with get_cuda_rng_tracker().fork():
        split = torch.rand(4).tolist()
    return torch.rand(4).tolist(), split


def test_tensor_parallel_ranks_share_hidden_dropout_and_not_attention_dropout() -> None:
    """Heads are split: the same mask on both ranks would drop the same weights of different heads."""
    first = run_ranks(4, _draws, 16)
    whole, split = zip(*first, strict=True)
    assert whole[0] == whole[1] == whole[2] == whole[3]
    assert split[0] != split[1], "neighbours hold different heads"
    assert (split[0], split[1]) == (split[2], split[3]), "replicas agree: masks depend on samples only"
    assert split[0] != whole[0]
    other = run_ranks(2, _draws, 17)
    assert other[0][0] != whole[0]


def _wait_in_a_subgroup() -> bool:
    """Rank 1 comes 20 seconds late to a collective that waits for 5; return whether rank 0 gave up."""
    from datetime import timedelta

    from gptdist.mesh.groups import make_mesh
    from gptdist.mesh.layout import Layout

    mesh = make_mesh(Layout(2, 1, 1, 1), timedelta(seconds=5))
    if mesh.rank == 1:
        time.sleep(20)
    try:
        dist.all_reduce(torch.ones(1), group=mesh.tensor_group)
    except RuntimeError:
        return True
    return False


def test_a_lost_rank_is_noticed_in_every_group() -> None:
    """megatron-core's groups would wait for 30 minutes of their own."""
    assert run_ranks(2, _wait_in_a_subgroup)[0]


def _broadcasts() -> list[str | None]:
    from gptdist.mesh.groups import broadcast_text, max_over_ranks

    rank = dist.get_rank()
    assert max_over_ranks(rank * 5) == 5 * (dist.get_world_size() - 1)
    return [broadcast_text(text if rank == 0 else "not this") for text in (None, "", "step → 3", "x" * 10_000)]


def test_rank_zero_decides() -> None:
    assert run_ranks(3, _broadcasts) == [[None, "", "step → 3", "x" * 10_000]] * 3


def _decayed(tree) -> dict[str, float]:

    run = open_run(tree)
    decay = {
        id(parameter): group["weight_decay"]
        for group in run.engine.deepspeed.basic_optimizer.param_groups
        for parameter in group["params"]
    }
    if run.config.parallel.zero_stage:  # the groups hold DeepSpeed's flat tensors: look at its own lists
        lists = getattr(run.engine.optimizer, "fp16_groups", None) or run.engine.optimizer.bit16_groups
        decay = {
            id(parameter): group["weight_decay"]
            for group, parameters in zip(run.engine.optimizer.param_groups, lists, strict=True)
            for parameter in parameters
        }
    return {name: decay[id(parameter)] for name, parameter in run.engine.module.named_parameters()}


@pytest.mark.parametrize("layout", [TestedLayout(1, 0, 1), TestedLayout(2, 1, 1), TestedLayout(2, 3, 1)], ids=str)
def test_only_matrices_are_decayed(tmp_path: Path, layout: TestedLayout) -> None:
    """Under ZeRO-3 every parameter is flat: a look at the tensor's own dimensions would decay nothing."""
    changes = layout.sections() | {"optimizer": {"weight_decay": 0.25}, "model": LLAMA | {"add_bias": True}}
    found = run_ranks(layout.world_size, _decayed, run_tree(tmp_path, **changes))[0]
    assert found["embedding.word_embeddings.weight"] == found["output_layer.weight"] == 0.25
    assert found["decoder.layers.0.mlp.linear_fc2.weight"] == 0.25
    for name in ("input_layernorm.weight", "self_attention.linear_qkv.bias", "mlp.linear_fc1.bias"):
        assert found[f"decoder.layers.1.{name}"] == 0.0
