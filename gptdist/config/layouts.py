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
    pipeline_parallel: bool = False
    has_experts: bool = False
    expert_parallel: bool = False

    def __str__(self) -> str:
        """Name what is split."""
        axes = {
            "data": self.data_parallel,
            "tensor": self.tensor_parallel,
            "sequence": self.sequence_parallel,
            "context": self.context_parallel,
            "pipeline": self.pipeline_parallel,
            "experts": self.expert_parallel,
        }
        return " + ".join(name for name, is_split in axes.items() if is_split) or "one rank"

    def refusals(self) -> list[str]:
        """Return every reason why no layout of this kind can be trained, and what to do; none where they can."""
        bad = []
        if self.sequence_parallel and not self.tensor_parallel:
            bad.append(
                "parallel.sequence_parallel: needs tensor_parallel_size above 1, got 1; raise it, or leave it out"
            )
        if self.has_experts and self.context_parallel:
            bad.append(
                "parallel.context_parallel_size: not with model.moe, whose router's losses need all tokens of a sample "
                "on a rank; use 1, and tensor_parallel_size or zero_stage to spread the model"
            )
        if self.has_experts and self.pipeline_parallel:
            bad.append(
                "parallel.pipeline_parallel_size: not with model.moe, whose router's losses need all layers on a rank; "
                "use 1, and tensor_parallel_size or zero_stage to spread the model"
            )
        elif self.pipeline_parallel and self.zero_stage == 3:
            bad.append(
                "parallel.zero_stage: 3 collects each layer's weights anew for every micro batch, in an order that "
                "pipeline_parallel_size above 1 breaks; use zero_stage 1 or 2, or pipeline_parallel_size 1"
            )
        if self.expert_parallel and not self.has_experts:
            bad.append("parallel.expert_parallel_size: there is no model.moe; use 1")
        elif self.expert_parallel and not self.data_parallel:
            bad.append(
                "parallel.expert_parallel_size: splits experts over data-parallel ranks, and there is one; launch "
                "more ranks, or use 1"
            )
        elif self.expert_parallel and self.zero_stage == 3:
            bad.append(
                "parallel.expert_parallel_size: DeepSpeed does not split experts so at ZeRO stage 3; use zero_stage 2, "
                "or expert_parallel_size 1"
            )
        return bad

    def neighbour(self) -> "LayoutKind":
        """Return the nearest kind that can be trained: itself if it can."""
        pipeline = self.pipeline_parallel and not self.has_experts
        experts = self.expert_parallel and self.has_experts and self.data_parallel
        return replace(
            self,
            zero_stage=min(self.zero_stage, 2) if pipeline or experts else self.zero_stage,
            sequence_parallel=self.sequence_parallel and self.tensor_parallel,
            context_parallel=self.context_parallel and not self.has_experts,
            pipeline_parallel=pipeline,
            expert_parallel=experts,
        )


def all_kinds() -> Iterator[LayoutKind]:
    """Yield every kind, legal or not; experts are split where there are some."""
    flags = (False, True)
    models = ((False, False), (True, False), (True, True))
    for (has_experts, experts), pipeline, sequence, tensor, context, data, stage in product(
        models, flags, flags, flags, flags, flags, ZERO_STAGES
    ):
        yield LayoutKind(stage, data, tensor, sequence, context, pipeline, has_experts, experts)
