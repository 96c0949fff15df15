"""Next-token loss straight from hidden states, a chunk of tokens at a time, over a vocabulary split between ranks.

The matrix of logits (tokens x vocabulary) never exists whole, and padding columns take no part: the loss is the same
for every tensor-parallel size. Gradients are computed in the forward pass, while a chunk's logits are at hand.

Letters: t tokens, c of them in a chunk, h hidden, v vocabulary rows of this rank (padding included).
"""

from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from gptdist.model import chunked_head
from gptdist.model.chunked_head import ChunkedHead, VocabularyShard, saved_gradients


def vocabulary_loss(
    hidden: Tensor, weight: Tensor, labels: Tensor, shard: VocabularyShard, z_loss: float = 0.0
) -> Tensor:
    """Return the mean cross-entropy of predicting ``labels``, in nats.

    A label below 0 counts as a loss of 0 without a gradient; the mean is still over all t.

    With ``z_loss`` the gradient is that of the cross-entropy + z_loss x mean(log(sum of exp(logits))^2), which keeps
    logits from drifting; the value returned is the cross-entropy alone, so that runs can be compared.

    Shapes: hidden [t, h], weight [v, h], labels [t] -> [].

    Communication: over ``shard.group``, two all-reduces of 1 and 2 values a token forward, and one of hidden's size
    for its gradient.

    Source: chunked cross-entropy with gradients in the forward pass, as in Hsu et al. 2024 (Liger Kernel); z-loss:
    Chowdhery et al. 2022 (PaLM), section 5, with 1e-4.
    """
    return _VocabularyLoss.apply(hidden, weight, labels, shard, z_loss)


class _VocabularyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, shard: VocabularyShard, z_loss: float
    ) -> Tensor:
        head = ChunkedHead(hidden, weight, shard)
        head.keep_gradients(ctx)
        total = torch.zeros((), dtype=head.dtype, device=hidden.device)
        for chunk in head.chunks(chunked_head.CHUNK_ELEMENTS):
            total += _loss_of(head, chunk, labels[chunk], z_loss)
        head.save_gradients(ctx)
        return total / labels.shape[0]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor | None, None, None, None]:
        return *saved_gradients(ctx, grads[0]), None, None, None


def _loss_of(head: ChunkedHead, chunk: slice, labels: Tensor, z_loss: float) -> Tensor:
    """Return the sum of the losses of ``chunk``."""
    softmax = _Softmax.of(head, chunk, labels)
    losses = softmax.losses.masked_fill(labels < 0, 0.0)
    if head.has_gradients:
        gradient, scale = softmax.gradient(z_loss)
        head.add(chunk, gradient, (scale / head.divide_by).masked_fill_(labels < 0, 0.0))
    return losses.sum()


@dataclass(frozen=True)
class _Softmax:
    """What a chunk's logits became.

    Shapes: exponentials [c, v], of logits less each token's highest; sums, log_sums and losses [c]; tokens and targets:
    the places among them of the labels that this rank holds.
    """

    exponentials: Tensor
    sums: Tensor
    log_sums: Tensor
    losses: Tensor
    tokens: Tensor
    targets: Tensor

    @classmethod
    def of(cls, head: ChunkedHead, chunk: slice, labels: Tensor) -> Self:
        """Work on the chunk's logits in place."""
        logits, shard = head.logits(chunk), head.shard
        tokens, targets = places_of(labels, shard)
        highest = head.highest(logits)
        if shard.group is not None:
            dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=shard.group)
        logits -= highest.unsqueeze(1)
        sums = torch.zeros(2, logits.shape[0], dtype=logits.dtype, device=logits.device)
        sums[1, tokens] = logits[tokens, targets]
        exponentials = logits.exp_()
        sums[0] = exponentials.sum(dim=1)
        if shard.group is not None:
            dist.all_reduce(sums, group=shard.group)
        log_sums = sums[0].log()
        return cls(exponentials, sums[0], log_sums + highest, log_sums - sums[1], tokens, targets)

    def gradient(self, z_loss: float) -> tuple[Tensor, Tensor]:
        """Return [c, v] and [c]: the gradient of the sum of losses by the logits, and what its rows are multiplied by.

        It is softmax minus one-hot, and z-loss's, worked out in place.
        """
        gradient = self.exponentials
        if z_loss == 0.0:
            gradient[self.tokens, self.targets] -= self.sums[self.tokens]
            return gradient, 1.0 / self.sums
        scale = (1.0 + 2.0 * z_loss * self.log_sums) / self.sums
        gradient *= scale.unsqueeze(1)
        gradient[self.tokens, self.targets] -= 1.0
        return gradient, torch.ones_like(scale)


def places_of(labels: Tensor, shard: VocabularyShard) -> tuple[Tensor, Tensor]:
    """Return which of ``labels`` [c] are of rows that this rank holds, and which rows those are."""
    local = labels - shard.start
    tokens = torch.nonzero((local >= 0) & (local < shard.num_valid)).squeeze(1)
    return tokens, local[tokens]
