"""Broadcasts of partitions give every rank what DeepSpeed's gathering gives it."""

from typing import Any

import pytest

from tests.support.ranks import run_ranks

NUMELS = (12, 30)


def share(is_bf16: bool) -> list[tuple[list[float], list[float]]]:
    """Share two groups of weights both ways, from partitions of which each rank knows its own only."""
    import deepspeed
    import torch
    import torch.distributed as dist
    from deepspeed.runtime import bf16_optimizer
    from deepspeed.runtime.zero import stage_1_and_2

    deepspeed.init_distributed("gloo", verbose=False)
    ours: Any = (bf16_optimizer if is_bf16 else stage_1_and_2).all_gather_dp_groups
    rank, size, found = dist.get_rank(), dist.get_world_size(), []
    for function in (ours, ours.instead_of):
        flats = [torch.full((numel,), -1.0) for numel in NUMELS]
        partitions = [list(flat.chunk(size)) for flat in flats]
        for number, group in enumerate(partitions):
            group[rank].copy_(torch.arange(group[rank].numel()) + 100.0 * rank + 1000.0 * number)
        function(
            groups_flat=flats,
            partitioned_param_groups=partitions,
            dp_process_group=[dist.group.WORLD] * len(NUMELS),
            start_alignment_factor=2,
            allgather_bucket_size=1 << 20,
        )
        found.append([flat.tolist() for flat in flats])
    return list(zip(*found, strict=True))


@pytest.mark.parametrize("is_bf16", [False, True])
@pytest.mark.parametrize("world_size", [1, 3])
def test_every_rank_has_all_weights(world_size: int, is_bf16: bool) -> None:
    for groups in run_ranks(world_size, share, is_bf16):
        for numel, (ours, gathered) in zip(NUMELS, groups, strict=True):
            assert ours == gathered
            assert len(ours) == numel
            assert -1.0 not in ours
