"""Which kinds of layouts can be trained: each is compared with one rank by a test, or refused with a reason; no torch.

Of a kind are all layouts whose axes are 1 or more than 1 alike. ``docs/layouts.md`` shows them all.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

ZERO_STAGES = (0, 1, 2, 3)


@dataclass(frozen=True)
class LayoutKind:
    """What a layout splits, without saying how often."""

    zero_stage: int
    data_parallel: bool = False
    tensor_parallel: bool = False
    sequence_parallel: bool = False
    context_parallel: bool = False
    has_experts: bool = False

    def __str__(self) -> str:
        """Name what is split."""
        axes = {
            "data": self.data_parallel,
            "tensor": self.tensor_parallel,
            "sequence": self.sequence_parallel,
            "context": self.context_parallel,
        }
        return " + ".join(name for name, is_split in axes.items() if is_split) or "one rank"

    def refusal(self) -> str | None:
        """Return why no layout of this kind can be trained, and what to do; None where they can."""
        if self.sequence_parallel and not self.tensor_parallel:
            return "parallel.sequence_parallel: needs tensor_parallel_size above 1, got 1; raise it, or leave it out"
        if self.has_experts and self.context_parallel:
            return (
                "parallel.context_parallel_size: not with model.moe, whose router's losses need all tokens of a sample "
                "on a rank; use 1, and tensor_parallel_size or zero_stage to spread the model"
            )
        return None

    def neighbour(self) -> "LayoutKind":
        """Return the nearest kind that can be trained: itself if it can."""
        return replace(
            self,
            sequence_parallel=self.sequence_parallel and self.tensor_parallel,
            context_parallel=self.context_parallel and not self.has_experts,
        )


def all_kinds() -> Iterator[LayoutKind]:
    """Yield every kind, legal or not."""
    flags = (False, True)
    for experts, sequence, tensor, context, data, stage in product(flags, flags, flags, flags, flags, ZERO_STAGES):
        yield LayoutKind(stage, data, tensor, sequence, context, experts)
