"""Next-token loss straight from hidden states, a chunk of tokens at a time, over a vocabulary split between ranks.

The matrix of logits (tokens x vocabulary) never exists whole, and padding columns take no part: the loss is the same
for every tensor-parallel size. Gradients are computed in the forward pass, while a chunk's logits are at hand.

Letters: t tokens, h hidden, v vocabulary rows of this rank (padding included).
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

CHUNK_ELEMENTS = 2**23
"""Logits held at a time; 32 MiB in fp32."""


@dataclass(frozen=True)
class VocabularyShard:
    """Which rows of the vocabulary this rank holds."""

    start: int
    """First row's token id."""

    num_valid: int
    """Rows that stand for tokens; the rest is padding."""

    group: dist.ProcessGroup | None
    """Ranks that hold the other rows; None where there are none."""


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
        rows = weight[: shard.num_valid]
        needs_grad = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        hidden_grad = torch.empty_like(hidden) if needs_grad else None
        # In fp32: thousands of chunks add up here.
        weight_grad = torch.zeros_like(weight, dtype=torch.float32) if needs_grad else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        count = labels.shape[0]
        # In fp16 the gradients of a mean would round to 0 before the loss scale is in: until then they are a sum's.
        ctx.divide_by = count if hidden.dtype == torch.float16 else 1
        step = max(1, CHUNK_ELEMENTS // max(1, weight.shape[0]))
        for begin in range(0, count, step):
            chunk = slice(begin, begin + step)
            losses, logit_grad = _chunk(hidden[chunk], rows, labels[chunk], shard, z_loss)
            total += losses.sum()
            if hidden_grad is not None and weight_grad is not None:
                logit_grad = logit_grad.div_(count // ctx.divide_by).to(hidden.dtype)
                torch.mm(logit_grad, rows, out=hidden_grad[chunk])
                weight_grad[: shard.num_valid] += logit_grad.t() @ hidden[chunk]
        if hidden_grad is not None and weight_grad is not None:
            if shard.group is not None:
                dist.all_reduce(hidden_grad, group=shard.group)
            ctx.save_for_backward(hidden_grad, weight_grad if ctx.divide_by > 1 else weight_grad.to(weight.dtype))
        return total / count

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None, None, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        if ctx.divide_by == 1:
            return hidden_grad * grads[0], weight_grad * grads[0], None, None, None
        factor = grads[0] / ctx.divide_by
        return (hidden_grad.float() * factor).half(), (weight_grad * factor).half(), None, None, None


def _chunk(
    hidden: Tensor, rows: Tensor, labels: Tensor, shard: VocabularyShard, z_loss: float
) -> tuple[Tensor, Tensor]:
    """Return each token's loss, and the gradient of their sum by the logits: softmax minus one-hot, and z-loss's."""
    logits = (hidden @ rows.t()).float()
    local = labels - shard.start
    is_here = (local >= 0) & (local < shard.num_valid)
    tokens = torch.nonzero(is_here).squeeze(1)
    targets = local[tokens]
    if rows.shape[0]:
        highest = logits.amax(dim=1)
    else:  # a rank with nothing but padding
        highest = torch.full((hidden.shape[0],), -torch.inf, dtype=torch.float32, device=hidden.device)
    if shard.group is not None:
        dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=shard.group)
    logits -= highest.unsqueeze(1)
    sums = torch.zeros(2, hidden.shape[0], dtype=torch.float32, device=hidden.device)
    sums[1, tokens] = logits[tokens, targets]
    probabilities = logits.exp_()
    sums[0] = probabilities.sum(dim=1)
    if shard.group is not None:
        dist.all_reduce(sums, group=shard.group)
    probabilities /= sums[0].unsqueeze(1)
    log_sums = sums[0].log()
    if z_loss:
        probabilities *= (1.0 + 2.0 * z_loss * (log_sums + highest)).unsqueeze(1)
    probabilities[tokens, targets] -= 1.0
    losses = log_sums - sums[1]
    ignored = torch.nonzero(labels < 0).squeeze(1)
    probabilities[ignored] = 0.0
    losses[ignored] = 0.0
    return losses, probabilities
