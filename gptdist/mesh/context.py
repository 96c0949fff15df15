"""Which tokens of a sample a context-parallel rank holds, and how ranks exchange what they hold.

Causal attention costs more the later a token stands. So samples are cut into 2c chunks for c ranks, and rank r holds
chunk r and chunk 2c - 1 - r: every rank has the same work.

Letters: s sequence, c context-parallel size, b batch.
"""

from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class ContextPart:
    """The part of every sample that one context-parallel rank holds."""

    rank: int = 0
    size: int = 1

    @classmethod
    def among(cls, group: dist.ProcessGroup) -> Self:
        """Return the part of this rank, whose samples the ranks of ``group`` share."""
        return cls(dist.get_rank(group), dist.get_world_size(group))

    def chunks(self, sequence: int) -> list[slice]:
        """Return where this rank's tokens stand in samples of ``sequence`` tokens, in its own order."""
        if self.size == 1:
            return [slice(0, sequence)]
        length, rest = divmod(sequence, 2 * self.size)
        assert not rest, f"{sequence} tokens do not divide into {2 * self.size} chunks"
        return [slice(chunk * length, (chunk + 1) * length) for chunk in (self.rank, 2 * self.size - 1 - self.rank)]

    def of(self, whole: Tensor, dim: int) -> Tensor:
        """Return this rank's part of ``whole``, of which ``dim`` is the sequence."""
        if self.size == 1:
            return whole
        pieces = [whole.narrow(dim, chunk.start, chunk.stop - chunk.start) for chunk in self.chunks(whole.shape[dim])]
        return torch.cat(pieces, dim)


WHOLE = ContextPart()
"""All tokens: no context parallelism."""


def gather_samples(local: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Return all tokens in their true order, of which each rank of ``group`` holds its ``ContextPart``.

    Shapes: [s / c, ...] -> [s, ...].

    Communication: over ``group``, an all-gather forward, a reduce-scatter of the same size backward.
    """
    return _GatherSamples.apply(local, group)


class _GatherSamples(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        size = dist.get_world_size(group)
        gathered = local.new_empty((size * local.shape[0], *local.shape[1:]))
        dist.all_gather_into_tensor(gathered, local.contiguous(), group=group)
        chunks = gathered.chunk(2 * size)
        return torch.cat([*chunks[0::2], *reversed(chunks[1::2])])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        size = dist.get_world_size(ctx.group)
        chunks = grads[0].chunk(2 * size)
        ordered = torch.cat([piece for rank in range(size) for piece in (chunks[rank], chunks[-1 - rank])])
        local = ordered.new_empty((ordered.shape[0] // size, *ordered.shape[1:]))
        dist.reduce_scatter_tensor(local, ordered, group=ctx.group)
        return local, None
