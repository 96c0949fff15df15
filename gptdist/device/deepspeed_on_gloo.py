"""How DeepSpeed gives every rank the new weights under ZeRO-1 and 2, where gloo carries them.

It gathers them. For that gloo takes a buffer of the size of all weights, and several times as long as for one
broadcast after the other, which lead to the same bits.
"""

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor


def install() -> None:
    """Put broadcasts in the place of DeepSpeed's gathering; groups of another back end are still gathered."""
    from deepspeed.runtime import bf16_optimizer
    from deepspeed.runtime.zero import stage_1_and_2

    for module in (bf16_optimizer, stage_1_and_2):
        gather = module.all_gather_dp_groups
        if not hasattr(gather, "instead_of"):
            module.all_gather_dp_groups = _Sharing(gather)


class _Sharing:
    """What DeepSpeed calls in place of its own function."""

    def __init__(self, instead_of: Any) -> None:
        self.instead_of = instead_of

    def __call__(
        self,
        *,
        partitioned_param_groups: Sequence[Sequence[Tensor]],
        dp_process_group: Sequence[dist.ProcessGroup],
        **others: Any,
    ) -> None:
        """Give the other ranks of each group this rank's partition, and take theirs. Collective."""
        if dist.get_backend(dp_process_group[0]) != "gloo":
            self.instead_of(
                partitioned_param_groups=partitioned_param_groups, dp_process_group=dp_process_group, **others
            )
            return
        works = [
            dist.broadcast(partition.data, group=ranks, group_src=rank, async_op=True)
            for partitions, ranks in zip(partitioned_param_groups, dp_process_group, strict=False)
            if len(partitions) > 1
            for rank, partition in enumerate(partitions)
        ]
        for work in works:
            assert work is not None, "this rank is one of the group"
            work.wait()
