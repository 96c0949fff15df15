"""Rank <-> place on the parallel axes, as pure integers; no torch.

Order of the axes, fastest first: tensor, context, data, pipeline. Ranks that share a weight matrix are therefore
neighbours, and sit on one node.
"""

from dataclasses import dataclass
from typing import Self

from gptdist.config.parallel import ParallelConfig


@dataclass(frozen=True)
class Place:
    """Where one rank stands on each axis."""

    tp_rank: int
    cp_rank: int
    dp_rank: int
    pp_rank: int


@dataclass(frozen=True)
class Layout:
    """Sizes of the parallel axes; their product is the number of ranks."""

    tensor_parallel_size: int
    context_parallel_size: int
    data_parallel_size: int
    pipeline_parallel_size: int
    expert_parallel_size: int = 1
    """Neighbours among the ranks that hold the same weights otherwise, which split the experts; no axis of its own."""

    @classmethod
    def of(cls, parallel: ParallelConfig, world_size: int) -> Self:
        """Return the layout of ``world_size`` ranks under ``parallel``, which must divide them."""
        return cls(
            tensor_parallel_size=parallel.tensor_parallel_size,
            context_parallel_size=parallel.context_parallel_size,
            data_parallel_size=parallel.data_parallel_size(world_size),
            pipeline_parallel_size=parallel.pipeline_parallel_size,
            expert_parallel_size=parallel.expert_parallel_size,
        )

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return (
            self.tensor_parallel_size
            * self.context_parallel_size
            * self.data_parallel_size
            * self.pipeline_parallel_size
        )

    @property
    def num_copies(self) -> int:
        """Number of ranks that hold the same weights: those of the data axis and of the context axis."""
        return self.data_parallel_size * self.context_parallel_size

    def copy_rank(self, place: Place) -> int:
        """Return the number of ``place`` among the ranks that hold the same weights."""
        return place.dp_rank * self.context_parallel_size + place.cp_rank

    def expert_rank(self, place: Place) -> int:
        """Return which part of the experts ``place`` holds."""
        return self.copy_rank(place) % self.expert_parallel_size

    def place(self, rank: int) -> Place:
        """Return where ``rank`` stands."""
        assert 0 <= rank < self.world_size, f"rank {rank} of {self.world_size}"
        rest, tp_rank = divmod(rank, self.tensor_parallel_size)
        rest, cp_rank = divmod(rest, self.context_parallel_size)
        pp_rank, dp_rank = divmod(rest, self.data_parallel_size)
        return Place(tp_rank=tp_rank, cp_rank=cp_rank, dp_rank=dp_rank, pp_rank=pp_rank)

    def rank(self, place: Place) -> int:
        """Return which rank stands at ``place``."""
        rank = place.pp_rank * self.data_parallel_size + place.dp_rank
        rank = rank * self.context_parallel_size + place.cp_rank
        return rank * self.tensor_parallel_size + place.tp_rank

    def __str__(self) -> str:
        """Name the axes in short, as logs show them."""
        text = f"{self.world_size} ranks = data {self.data_parallel_size} x tensor {self.tensor_parallel_size}"
        if self.context_parallel_size > 1:
            text += f" x context {self.context_parallel_size}"
        text += f" x pipeline {self.pipeline_parallel_size}" if self.pipeline_parallel_size > 1 else ""
        return text + (f", experts over {self.expert_parallel_size}" if self.expert_parallel_size > 1 else "")
