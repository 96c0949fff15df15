"""A teacher's distribution as a few kept tokens of each place, for a student's vocabulary that is split between ranks.

Letters: t tokens, c of them in a chunk, k kept ones of each, v vocabulary rows of this rank; T temperature, p the
teacher's distribution and q the student's, both at T.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gptdist.model.chunked_head import ChunkedHead, VocabularyShard

_LEAST = 1e-9
"""Of a probability whose logarithm is taken."""


@dataclass(frozen=True)
class SparseTargets:
    """Kept tokens and their probabilities at the temperature that they were kept with.

    Shapes: ids and probabilities [t, k]; constant [t].
    """

    ids: Tensor
    probabilities: Tensor
    """Drawn: how often each was drawn / draws, which is p on average. Of the likeliest: p itself."""

    constant: Tensor
    """What is taken from the student's cross-entropy to these probabilities so that it is a divergence: p's entropy
    where they were drawn, that of the kept ones (and of the rest) where they are the likeliest."""

    has_rest: bool = False
    """Whether the probability that is missing stands for all other tokens together: then the student's share of those
    is pulled to it, whatever it is made of."""

    def part(self, chunk: slice) -> "SparseTargets":
        """Return that of some tokens."""
        return SparseTargets(self.ids[chunk], self.probabilities[chunk], self.constant[chunk], self.has_rest)


class SparseChunk:
    """The targets of a chunk, compared with the student's logits; forward divergence only."""

    columns: None = None
    heard: None = None

    def __init__(self, targets: SparseTargets, shard: VocabularyShard, dtype: torch.dtype) -> None:
        """Take the targets of all ranks' tokens; this rank's are picked."""
        self._targets = targets
        self._probabilities = targets.probabilities.to(dtype)
        local = targets.ids - shard.start
        self._is_here = (local >= 0) & (local < shard.num_valid)
        self._local = local.masked_fill(~self._is_here, 0)
        self._log_q: Tensor | None = None

    def highest(self, _: ChunkedHead) -> list[Tensor]:
        """Return nothing: there are no logits to be shifted."""
        return []

    def lower_by(self, _: Tensor) -> None:
        """Shift nothing."""

    def seen(self, logits: Tensor) -> Tensor:
        """Return the student's logits, all of them."""
        return logits

    def compare(self, warm: Tensor, _: Any) -> list[Tensor]:
        """Return the student's logit of each kept token, 0 where another rank holds it: k times [c]."""
        if not warm.shape[1]:  # a rank with nothing but padding
            return [warm.new_zeros(warm.shape[0]) for _ in range(self._local.shape[1])]
        return list(warm.gather(1, self._local).masked_fill(~self._is_here, 0.0).unbind(1))

    def mixed(self, _: Tensor) -> list[Tensor]:
        """Return nothing."""
        return []

    def divergence(self, student_sum: Tensor, sums: Tensor) -> Tensor:
        """Return it from sums over all ranks: of exp(the student's), and those of ``compare``."""
        p = self._probabilities
        self._log_q = sums.t() - student_sum.log().unsqueeze(1)
        cross_entropy = -(p * self._log_q).sum(1)
        if self._targets.has_rest:
            left, lefts_q = self._rest()
            cross_entropy = cross_entropy - left * lefts_q.log()
        return cross_entropy - self._targets.constant.to(p.dtype)

    def _rest(self) -> tuple[Tensor, Tensor]:
        """Return what p and q leave to tokens that are not kept, [c] each."""
        assert self._log_q is not None, "divergence comes first"
        left = (1.0 - self._probabilities.sum(1)).clamp_min(0.0)
        return left, (1.0 - self._log_q.exp().sum(1)).clamp_min(_LEAST)

    def gradient(self, warm_exponentials: Tensor, pull: Tensor, student_sum: Tensor, hard: Tensor) -> Tensor:
        """Return [c, v], that of pull / T x T^2 x divergence by the student's logits, + the student's exp x ``hard``.

        It is q x (sum of kept p) - p; with a rest, q - p of kept tokens and q x (1 - p's rest / q's rest) of others.
        """
        assert self._log_q is not None, "divergence comes first"
        p = self._probabilities
        if self._targets.has_rest:
            left, lefts_q = self._rest()
            ratio = left / lefts_q
            everywhere = 1.0 - ratio
            kept = self._log_q.exp() * ratio.unsqueeze(1) - p
        else:
            everywhere, kept = p.sum(1), -p
        gradient = warm_exponentials.mul_((hard + pull * everywhere / student_sum).unsqueeze(1))
        if gradient.shape[1]:
            gradient.scatter_add_(1, self._local, (kept * pull.unsqueeze(1)).masked_fill(~self._is_here, 0.0))
        return gradient

    def spread(self, whole: Tensor, gradient: Tensor) -> Tensor:
        """Add ``gradient`` to ``whole``."""
        return whole.add_(gradient)
