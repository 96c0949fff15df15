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

CHUNK_ELEMENTS = 2**24
"""Logits held at a time; 64 MiB in fp32."""


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
        count = labels.shape[0]
        # In fp16 the gradients of a mean would round to 0 before the loss scale is in: until then they are a sum's.
        ctx.divide_by = count if hidden.dtype == torch.float16 else 1
        chunks = _Chunks(hidden, weight, labels, shard, z_loss)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            chunks.keep_gradients(divide_by=count // ctx.divide_by, of_weight=ctx.needs_input_grad[1])
        step = max(1, CHUNK_ELEMENTS // max(1, weight.shape[0]))
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for begin in range(0, count, step):
            total += chunks.loss(slice(begin, min(begin + step, count)))
        if chunks.hidden_grad is not None:
            if shard.group is not None:
                dist.all_reduce(chunks.hidden_grad, group=shard.group)
            weight_grad = chunks.weight_grad
            if weight_grad is not None and ctx.divide_by == 1:
                weight_grad = weight_grad.to(weight.dtype)
            ctx.save_for_backward(chunks.hidden_grad, weight_grad)
        return total / count

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor | None, None, None, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        if ctx.divide_by == 1:  # in place: nobody else has them, and autograd refuses a second backward pass
            weight_grad = None if weight_grad is None else weight_grad.mul_(grads[0])
            return hidden_grad.mul_(grads[0]), weight_grad, None, None, None
        factor = grads[0] / ctx.divide_by
        weight_grad = None if weight_grad is None else (weight_grad * factor).half()
        return (hidden_grad.float() * factor).half(), weight_grad, None, None, None


class _Chunks:
    """Loss and gradients of one chunk of tokens after another."""

    def __init__(self, hidden: Tensor, weight: Tensor, labels: Tensor, shard: VocabularyShard, z_loss: float) -> None:
        self.hidden = hidden
        self.rows = weight[: shard.num_valid]
        self.labels = labels
        self.shard = shard
        self.z_loss = z_loss
        self.weight_rows = weight.shape[0]
        self.hidden_grad: Tensor | None = None
        self.weight_grad: Tensor | None = None
        self.divide_by = 1
        self._product: Tensor | None = None

    def keep_gradients(self, divide_by: int, *, of_weight: bool) -> None:
        """Compute those of the sum of losses, divided, from now on; ``of_weight`` too, which may be frozen."""
        self.divide_by = divide_by
        self.hidden_grad = torch.empty_like(self.hidden)
        if of_weight:
            shape = (self.weight_rows, self.hidden.shape[1])
            # In fp32: thousands of chunks add up here.
            self.weight_grad = torch.zeros(shape, dtype=torch.float32, device=self.hidden.device)

    def loss(self, chunk: slice) -> Tensor:
        """Return the sum of the losses of ``chunk``."""
        hidden, labels = self.hidden[chunk], self.labels[chunk]
        softmax = _Softmax.of(self._logits(hidden), labels, self.shard)
        losses = softmax.losses.masked_fill(labels < 0, 0.0)
        if self.hidden_grad is not None:
            gradient, scale = softmax.gradient(self.z_loss)
            scale = (scale / self.divide_by).masked_fill_(labels < 0, 0.0).unsqueeze(1)
            if hidden.dtype == torch.float32:  # rows of the small matrices are scaled, not those of the large one
                torch.mm(gradient, self.rows, out=self.hidden_grad[chunk])
                self.hidden_grad[chunk] *= scale
                if self.weight_grad is not None:
                    self.weight_grad[: self.shard.num_valid].addmm_(gradient.t(), hidden * scale)
            else:
                rounded = gradient.mul_(scale).to(hidden.dtype)
                torch.mm(rounded, self.rows, out=self.hidden_grad[chunk])
                if self.weight_grad is not None:
                    self.weight_grad[: self.shard.num_valid] += rounded.t() @ hidden
        return losses.sum()

    def _logits(self, hidden: Tensor) -> Tensor:
        """Return logits in fp32, in memory that the next chunk's take over."""
        if self._product is None:
            self._product = hidden.new_empty(hidden.shape[0], self.rows.shape[0])
        product = self._product[: hidden.shape[0]]
        torch.mm(hidden, self.rows.t(), out=product)
        return product.float()  # fp32: the same memory


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
    def of(cls, logits: Tensor, labels: Tensor, shard: VocabularyShard) -> Self:
        """Work on ``logits`` in place."""
        local = labels - shard.start
        tokens = torch.nonzero((local >= 0) & (local < shard.num_valid)).squeeze(1)
        targets = local[tokens]
        if logits.shape[1]:
            highest = logits.amax(dim=1)
        else:  # a rank with nothing but padding
            highest = torch.full((logits.shape[0],), -torch.inf, dtype=torch.float32, device=logits.device)
        if shard.group is not None:
            dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=shard.group)
        logits -= highest.unsqueeze(1)
        sums = torch.zeros(2, logits.shape[0], dtype=torch.float32, device=logits.device)
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
