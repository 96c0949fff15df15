"""Hidden states times an output matrix, a chunk of tokens at a time, and the gradients of what is made of the logits.

Letters: t tokens, c of them in a chunk, h hidden, v vocabulary rows of this rank (padding included).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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


class ProductBuffer:
    """The product of a chunk's hidden states and rows, in memory that the next chunk's takes over."""

    def __init__(self, rows: Tensor) -> None:
        """Multiply by ``rows`` [v, h]."""
        self.rows = rows
        self._product: Tensor | None = None

    def of(self, hidden: Tensor) -> Tensor:
        """Return logits [c, v] of ``hidden`` [c, h], in fp32 at least; they may be written to."""
        if self._product is None:
            self._product = hidden.new_empty(hidden.shape[0], self.rows.shape[0])
        product = self._product[: hidden.shape[0]]
        torch.mm(hidden, self.rows.t(), out=product)
        return product.to(wide(hidden.dtype))  # fp32: the same memory


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the format that logits of ``dtype`` are worked on in: fp32, and fp64 stays."""
    return torch.promote_types(dtype, torch.float32)


class ChunkedHead:
    """Logits of one chunk of tokens after another, and the gradients of hidden states and matrix."""

    def __init__(self, hidden: Tensor, weight: Tensor, shard: VocabularyShard) -> None:
        """Take hidden states [t, h], and this rank's matrix [v, h]."""
        self.hidden = hidden
        self.shard = shard
        self.dtype = wide(hidden.dtype)
        self.hidden_grad: Tensor | None = None
        self.weight_grad: Tensor | None = None
        self.divide_by = 1
        self._weight_rows, self._weight_dtype = weight.shape[0], weight.dtype
        self._products = ProductBuffer(weight[: shard.num_valid])

    def keep_gradients(self, ctx: Any) -> None:
        """Compute those of the mean over all t from now on, if ``ctx`` of an autograd function needs any.

        The matrix may be frozen, and gets none then.
        """
        count = self.hidden.shape[0]
        # In fp16 the gradients of a mean would round to 0 before the loss scale is in: until then they are a sum's.
        ctx.divide_by = count if self.hidden.dtype == torch.float16 else 1
        if not (ctx.needs_input_grad[0] or ctx.needs_input_grad[1]):
            return
        self.divide_by = count // ctx.divide_by
        self.hidden_grad = torch.empty_like(self.hidden)
        if ctx.needs_input_grad[1]:
            shape = (self._weight_rows, self.hidden.shape[1])
            # In fp32: thousands of chunks add up here.
            self.weight_grad = torch.zeros(shape, dtype=self.dtype, device=self.hidden.device)

    @property
    def has_gradients(self) -> bool:
        """Whether they are computed."""
        return self.hidden_grad is not None

    def chunks(self, elements: int) -> Iterator[slice]:
        """Yield which tokens to take at a time, so that no more than ``elements`` logits are held."""
        count, step = self.hidden.shape[0], max(1, elements // max(1, self._weight_rows))
        for begin in range(0, count, step):
            yield slice(begin, min(begin + step, count))

    def logits(self, chunk: slice) -> Tensor:
        """Return [c, valid rows]; they may be written to, and are gone with the next chunk."""
        return self._products.of(self.hidden[chunk])

    def highest(self, logits: Tensor) -> Tensor:
        """Return each token's highest logit on this rank, [c]; minus infinity on a rank with nothing but padding."""
        if logits.shape[1]:
            return logits.amax(dim=1)
        return torch.full((logits.shape[0],), -torch.inf, dtype=logits.dtype, device=logits.device)

    def add(self, chunk: slice, gradient: Tensor, scale: Tensor | None = None) -> None:
        """Take the gradient of the sum over tokens by the logits of ``chunk``, [c, valid rows], which is written to.

        Args:
            chunk: which tokens.
            gradient: divided by ``divide_by`` once ``scale`` is in.
            scale: [c], what its rows are multiplied by.
        """
        if self.hidden_grad is None:
            return
        hidden, rows = self.hidden[chunk], self._products.rows
        if hidden.dtype == self.dtype:  # rows of the small matrices are scaled, not those of the large one
            torch.mm(gradient, rows, out=self.hidden_grad[chunk])
            if scale is not None:
                self.hidden_grad[chunk] *= scale.unsqueeze(1)
                hidden = hidden * scale.unsqueeze(1)
            if self.weight_grad is not None:
                self.weight_grad[: self.shard.num_valid].addmm_(gradient.t(), hidden)
        else:
            rounded = (gradient if scale is None else gradient.mul_(scale.unsqueeze(1))).to(hidden.dtype)
            torch.mm(rounded, rows, out=self.hidden_grad[chunk])
            if self.weight_grad is not None:
                self.weight_grad[: self.shard.num_valid] += rounded.t() @ hidden

    def save_gradients(self, ctx: Any) -> None:
        """Keep them for the backward pass. Communication: an all-reduce of hidden's size over the shard's group."""
        if self.hidden_grad is None:
            return
        if self.shard.group is not None:
            dist.all_reduce(self.hidden_grad, group=self.shard.group)
        weight_grad = self.weight_grad
        if weight_grad is not None and ctx.divide_by == 1:
            weight_grad = weight_grad.to(self._weight_dtype)
        ctx.save_for_backward(self.hidden_grad, weight_grad)


def saved_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the gradients that were saved, times ``grad``, that of the mean; none of a matrix that is frozen."""
    hidden_grad, weight_grad = ctx.saved_tensors
    if ctx.divide_by == 1:  # in place: nobody else has them, and autograd refuses a second backward pass
        return hidden_grad.mul_(grad), None if weight_grad is None else weight_grad.mul_(grad)
    factor = grad / ctx.divide_by
    return (hidden_grad.float() * factor).half(), None if weight_grad is None else (weight_grad * factor).half()
