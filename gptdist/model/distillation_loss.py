"""What a student is to learn from a teacher, exact over a vocabulary that is split between ranks.

Softmax and divergence are over all tokens of the vocabulary, never over the rows of one rank: for every
tensor-parallel size the loss is the same, and its gradients too. Neither student's nor teacher's logits exist whole.

Letters: t tokens, c of them in a chunk, h hidden (g the teacher's), v vocabulary rows of this rank, k the teacher's of
them or kept tokens; T temperature, p the teacher's distribution and q the student's, both at T.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from gptdist.model import chunked_head
from gptdist.model.chunked_head import ChunkedHead, ProductBuffer, VocabularyShard, saved_gradients
from gptdist.model.loss import places_of
from gptdist.model.sparse_targets import SparseChunk, SparseTargets

__all__ = ["DenseTargets", "Objective", "SparseTargets", "Targets", "distillation_loss"]

Divergence = Literal["forward", "reverse"]


@dataclass(frozen=True)
class Objective:
    """What is minimised: ce_weight x cross-entropy + kl_weight x T^2 x divergence, and z-loss.

    T^2 keeps the size of the gradient, whatever T is: Hinton et al. 2015, "Distilling the Knowledge in a Neural
    Network", section 2.
    """

    divergence: Divergence = "forward"
    """Forward is KL(p || q), the sum of p log(p / q), which covers all that the teacher holds for possible; reverse is
    KL(q || p), which keeps to what it holds for likely."""

    temperature: float = 1.0
    ce_weight: float = 0.0
    kl_weight: float = 1.0
    z_loss: float = 0.0


@dataclass(frozen=True)
class DenseTargets:
    """A teacher's logits, as the hidden states and rows that they are the products of.

    Shapes: hidden [t, g]; rows [k, g], for those tokens of this rank that the teacher knows.
    """

    hidden: Tensor
    rows: Tensor
    columns: Tensor | None = None
    """[k], the student's row on this rank of each of ``rows``; None where they are its valid rows, in their order."""

    heard: Tensor | None = None
    """[t], at which tokens the divergence counts; None where it does at all whose labels count."""


Targets = DenseTargets | SparseTargets


def distillation_loss(
    hidden: Tensor, weight: Tensor, labels: Tensor, shard: VocabularyShard, targets: Targets, objective: Objective
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, and of it the mean cross-entropy and the mean T^2 x divergence, both unweighted, in nats.

    Where a label is below 0, neither counts; means are still over all t. The gradient is the loss's and that of
    z_loss x mean(log(sum of exp(logits))^2), which is not in the value. Only the loss has a gradient.

    Shapes: hidden [t, h], weight [v, h], labels [t] -> [], [], [].

    Communication: over ``shard.group``, two all-reduces of 2 and 5 values a token (sparse targets: 1 and 3 + k), and
    one of hidden's size for its gradient.
    """
    loss, parts = _DistillationLoss.apply(hidden, weight, labels, shard, targets, objective)
    return loss, parts[0], parts[1]


class _DistillationLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        shard: VocabularyShard,
        targets: Targets,
        objective: Objective,
    ) -> tuple[Tensor, Tensor]:
        head = ChunkedHead(hidden, weight, shard)
        head.keep_gradients(ctx)
        soft = _Dense(targets) if isinstance(targets, DenseTargets) else _Sparse(targets)
        parts = torch.zeros(2, dtype=head.dtype, device=hidden.device)
        for chunk in head.chunks(chunked_head.CHUNK_ELEMENTS):
            parts += _chunk(head, chunk, labels[chunk], soft, objective)
        head.save_gradients(ctx)
        parts /= labels.shape[0]
        ctx.mark_non_differentiable(parts)
        return objective.ce_weight * parts[0] + objective.kl_weight * parts[1], parts

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor | None, None, None, None, None]:
        return *saved_gradients(ctx, grads[0]), None, None, None, None


def _chunk(head: ChunkedHead, chunk: slice, labels: Tensor, soft: "_Soft", objective: Objective) -> Tensor:
    """Return the sums of cross-entropies and of divergences of a chunk, [2]; its gradients go to ``head``."""
    logits, live = head.logits(chunk), labels >= 0
    view = soft.of(chunk, head)
    heard = live if view.heard is None else live & view.heard
    highest = torch.stack([head.highest(logits), *view.highest(head)])
    _reduce(highest, head.shard, dist.ReduceOp.MAX)
    logits -= highest[0].unsqueeze(1)
    view.lower_by(highest[1:])
    tokens, targets = places_of(labels, head.shard)
    wanted = torch.zeros_like(highest[0])
    wanted[tokens] = logits[tokens, targets]

    # The same numbers serve both terms where they are of the same tokens at the same temperature.
    is_shared = objective.temperature == 1.0 and view.columns is None
    warm = logits if is_shared else view.seen(logits) / objective.temperature
    compared = view.compare(warm, objective)
    exponentials = logits.exp_()
    warm_exponentials = exponentials if is_shared else warm.exp_()
    sums = torch.stack(
        [exponentials.sum(1), wanted, warm_exponentials.sum(1), *compared, *view.mixed(warm_exponentials)]
    )
    _reduce(sums, head.shard, dist.ReduceOp.SUM)

    square = objective.temperature**2
    divergence = square * view.divergence(sums[2], sums[3:])
    ce = sums[0].log() - sums[1]
    if head.has_gradients:
        factor = live.to(head.dtype) / head.divide_by
        lse = sums[0].log() + highest[0]
        # d/dlogits of ce_weight x CE + z_loss x lse^2 is softmax x hard - one-hot x ce_weight
        hard = factor * (objective.ce_weight + 2.0 * objective.z_loss * lse) / sums[0]
        pull = factor * heard * objective.kl_weight * objective.temperature
        if is_shared:
            gradient = view.gradient(exponentials, pull, sums[2], hard)
        else:
            soft_gradient = view.gradient(warm_exponentials, pull, sums[2], torch.zeros_like(hard))
            gradient = view.spread(exponentials.mul_(hard.unsqueeze(1)), soft_gradient)
        gradient[tokens, targets] -= objective.ce_weight * factor[tokens]
        head.add(chunk, gradient)
    return torch.stack([ce.masked_fill(~live, 0.0).sum(), divergence.masked_fill(~heard, 0.0).sum()])


def _reduce(values: Tensor, shard: VocabularyShard, operation: Any) -> None:
    if shard.group is not None:
        dist.all_reduce(values, op=operation, group=shard.group)


class _Soft(Protocol):
    """Where the targets of a chunk come from."""

    def of(self, chunk: slice, head: ChunkedHead) -> "_DenseChunk | SparseChunk":
        """Return them."""
        ...


class _Dense:
    def __init__(self, targets: DenseTargets) -> None:
        self._targets = targets
        self._products = ProductBuffer(targets.rows)

    def of(self, chunk: slice, head: ChunkedHead) -> "_DenseChunk":
        products = self._products.of(self._targets.hidden[chunk]).to(head.dtype)
        heard = self._targets.heard
        return _DenseChunk(products, self._targets.columns, None if heard is None else heard[chunk])


class _Sparse:
    def __init__(self, targets: SparseTargets) -> None:
        self._targets = targets

    def of(self, chunk: slice, head: ChunkedHead) -> SparseChunk:
        return SparseChunk(self._targets.part(chunk), head.shard, head.dtype)


class _DenseChunk:
    """The teacher's logits of a chunk, worked on in place.

    After ``compare`` they are its log-ratio to the student: (its logits - the student's) / T, each less the token's
    highest.
    """

    def __init__(self, logits: Tensor, columns: Tensor | None, heard: Tensor | None) -> None:
        self._logits = logits
        self.columns = columns
        self.heard = heard
        self._exponentials: Tensor | None = None
        self._sums: Tensor | None = None
        self._is_forward = True

    def highest(self, head: ChunkedHead) -> list[Tensor]:
        return [head.highest(self._logits)]

    def lower_by(self, highest: Tensor) -> None:
        self._logits -= highest[0].unsqueeze(1)

    def seen(self, logits: Tensor) -> Tensor:
        """Return those of the student's logits whose tokens the teacher knows."""
        return logits if self.columns is None else logits[:, self.columns]

    def compare(self, warm: Tensor, objective: Objective) -> list[Tensor]:
        """Return sums over this rank's tokens: of exp(the teacher's); forward: of exp(the teacher's) x log-ratio."""
        if objective.temperature != 1.0:
            self._logits /= objective.temperature
        self._exponentials = self._logits.exp()
        sums = [self._exponentials.sum(1)]
        self._logits -= warm
        self._is_forward = objective.divergence == "forward"
        if self._is_forward:
            sums.append(torch.linalg.vecdot(self._exponentials, self._logits))
        return sums

    def mixed(self, warm_exponentials: Tensor) -> list[Tensor]:
        """Return the sum that reverse needs: of exp(the student's) x log-ratio."""
        return [] if self._is_forward else [torch.linalg.vecdot(warm_exponentials, self._logits)]

    def divergence(self, student_sum: Tensor, sums: Tensor) -> Tensor:
        """Return it from sums over all ranks: of exp(the student's), and those of ``compare`` and ``mixed``."""
        self._sums = sums
        teacher_sum, mixed = sums
        if self._is_forward:
            return mixed / teacher_sum - teacher_sum.log() + student_sum.log()
        return teacher_sum.log() - student_sum.log() - mixed / student_sum

    def gradient(self, warm_exponentials: Tensor, pull: Tensor, student_sum: Tensor, hard: Tensor) -> Tensor:
        """Return [c, k], that of pull / T x T^2 x divergence by the student's logits, + the student's exp x ``hard``.

        With q = student's exp / its sum, forward is q - p, and reverse q x (log(q / p) - divergence).
        """
        assert self._sums is not None, "divergence comes first"
        assert self._exponentials is not None, "compare comes first"
        teacher_sum, mixed = self._sums
        share = pull / student_sum
        if self._is_forward:
            gradient = warm_exponentials.mul_((hard + share).unsqueeze(1))
            return gradient.sub_(self._exponentials.mul_((pull / teacher_sum).unsqueeze(1)))
        ratio = self._logits.sub_((mixed / student_sum).unsqueeze(1)).mul_(-share.unsqueeze(1))
        return warm_exponentials.mul_(ratio.add_(hard.unsqueeze(1)))

    def spread(self, whole: Tensor, gradient: Tensor) -> Tensor:
        """Add ``gradient`` to those columns of ``whole`` that it is of."""
        return whole.add_(gradient) if self.columns is None else whole.index_add_(1, self.columns, gradient)
