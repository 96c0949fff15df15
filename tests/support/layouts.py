"""The layouts that tests compare with one rank."""

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

from gptdist.config.layouts import LayoutKind


@dataclass(frozen=True)
class TestedLayout:
    """So many ranks, split so."""

    world_size: int
    zero_stage: int
    tensor_parallel_size: int
    sequence_parallel: bool = False
    context_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    expert_parallel_size: int = 1

    __test__ = False

    def kind(self, *, has_experts: bool = False) -> LayoutKind:
        """Return what this layout splits."""
        split = self.tensor_parallel_size * self.context_parallel_size * self.pipeline_parallel_size
        return LayoutKind(
            zero_stage=self.zero_stage,
            data_parallel=self.world_size > split,
            tensor_parallel=self.tensor_parallel_size > 1,
            sequence_parallel=self.sequence_parallel,
            context_parallel=self.context_parallel_size > 1,
            pipeline_parallel=self.pipeline_parallel_size > 1,
            has_experts=has_experts,
            expert_parallel=self.expert_parallel_size > 1,
        )

    def sections(self) -> dict[str, Any]:
        """Return the config sections of this layout."""
        return {
            "parallel": {
                "zero_stage": self.zero_stage,
                "tensor_parallel_size": self.tensor_parallel_size,
                "sequence_parallel": self.sequence_parallel,
                "context_parallel_size": self.context_parallel_size,
                "pipeline_parallel_size": self.pipeline_parallel_size,
                "expert_parallel_size": self.expert_parallel_size,
            },
            "launch": {"ranks_per_node": self.world_size},
        }

    def __str__(self) -> str:
        sizes = {
            "tp": self.tensor_parallel_size,
            "cp": self.context_parallel_size,
            "pp": self.pipeline_parallel_size,
        }
        data = self.world_size // math.prod(sizes.values())
        experts = [f"ep{self.expert_parallel_size}"] if self.expert_parallel_size > 1 else []
        axes = [f"dp{data}", *experts, *(f"{axis}{size}" for axis, size in sizes.items() if axis == "tp" or size > 1)]
        return f"zero{self.zero_stage}-{'-'.join(axes)}{'-sp' if self.sequence_parallel else ''}"


ONE_RANK = TestedLayout(1, 0, 1)
LAYOUTS = [
    TestedLayout(1, 1, 1),
    TestedLayout(2, 0, 1),
    TestedLayout(2, 1, 1),
    TestedLayout(2, 2, 1),
    TestedLayout(2, 3, 1),
    TestedLayout(2, 0, 2),
    TestedLayout(2, 1, 2),
    TestedLayout(2, 2, 2),
    TestedLayout(2, 3, 2),
    TestedLayout(4, 1, 2),
    TestedLayout(4, 2, 2),
    TestedLayout(4, 3, 2),
    TestedLayout(4, 0, 2),
    TestedLayout(2, 0, 2, sequence_parallel=True),
    TestedLayout(2, 1, 2, sequence_parallel=True),
    TestedLayout(2, 2, 2, sequence_parallel=True),
    TestedLayout(2, 3, 2, sequence_parallel=True),
    TestedLayout(4, 0, 2, sequence_parallel=True),
    TestedLayout(4, 1, 2, sequence_parallel=True),
    TestedLayout(4, 2, 2, sequence_parallel=True),
    TestedLayout(4, 3, 2, sequence_parallel=True),
    TestedLayout(4, 1, 4, sequence_parallel=True),
    TestedLayout(2, 0, 1, context_parallel_size=2),
    TestedLayout(2, 1, 1, context_parallel_size=2),
    TestedLayout(2, 2, 1, context_parallel_size=2),
    TestedLayout(2, 3, 1, context_parallel_size=2),
]
WIDE_CONTEXT_LAYOUTS = [
    TestedLayout(4, 1, 1, context_parallel_size=4),
    TestedLayout(4, 3, 1, context_parallel_size=4),
    *(TestedLayout(4, stage, 1, context_parallel_size=2) for stage in range(4)),
    *(TestedLayout(4, stage, 2, context_parallel_size=2) for stage in range(4)),
    *(TestedLayout(4, stage, 2, sequence_parallel=True, context_parallel_size=2) for stage in range(4)),
    *(TestedLayout(8, stage, 2, context_parallel_size=2) for stage in range(4)),
    *(TestedLayout(8, stage, 2, sequence_parallel=True, context_parallel_size=2) for stage in range(4)),
]
"""Tested with one model each: the one with most switches."""

PIPELINE_LAYOUTS = [
    *(
        TestedLayout(
            2 * data * tensor * context,
            stage,
            tensor,
            sequence_parallel=sequence,
            context_parallel_size=context,
            pipeline_parallel_size=2,
        )
        for data, (tensor, sequence), context, stage in product(
            (1, 2), ((1, False), (2, False), (2, True)), (1, 2), range(3)
        )
    ),
    TestedLayout(4, 0, 1, pipeline_parallel_size=4),
    TestedLayout(4, 1, 1, pipeline_parallel_size=4),
]
"""Tested with one model each, in turn."""

SPLIT_EXPERT_LAYOUTS = [
    *(TestedLayout(2, stage, 1, expert_parallel_size=2) for stage in range(3)),
    *(TestedLayout(4, stage, 2, expert_parallel_size=2) for stage in range(3)),
    *(TestedLayout(4, stage, 2, sequence_parallel=True, expert_parallel_size=2) for stage in range(3)),
    TestedLayout(4, 0, 1, expert_parallel_size=2),
    TestedLayout(4, 1, 1, expert_parallel_size=2),
    TestedLayout(4, 2, 1, expert_parallel_size=4),
]

EXPERT_LAYOUTS = [
    *(TestedLayout(1, stage, 1) for stage in range(1, 4)),
    *(TestedLayout(2, stage, 1) for stage in range(4)),
    *(TestedLayout(world, stage, 2) for world in (2, 4) for stage in range(4)),
    *(TestedLayout(world, stage, 2, sequence_parallel=True) for world in (2, 4) for stage in range(4)),
]
"""Tested with a mixture of experts, and so are those that split them."""
