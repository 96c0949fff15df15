"""The chunked distillation loss over a split vocabulary equals dense autograd in fp64, gradients included."""

from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from gptdist.model import chunked_head
from gptdist.model.chunked_head import VocabularyShard
from gptdist.model.distillation_loss import DenseTargets, Objective, SparseTargets, Targets, distillation_loss
from tests.support.ranks import run_ranks

TOLERANCE = 1e-11
"""fp64; values are below 100."""

TOKENS, HIDDEN, TEACHERS, VOCABULARY, KEPT = 23, 6, 9, 50, 5
PADDED_ROWS = {1: 64, 2: 64, 3: 150}
"""By ranks; of three, the last two hold some padding, or nothing else."""

UPSTREAM = 2.5
OBJECTIVES = [
    Objective(divergence, temperature, ce_weight, 0.7, z_loss)
    for divergence, temperature, (ce_weight, z_loss) in product(
        ("forward", "reverse"), (1.0, 2.5), ((0.0, 0.0), (0.3, 0.01))
    )
]
SHARED = torch.tensor([0, 3, 4, 17, 31, 32, 33, 49])
"""Tokens of the student that a teacher of another vocabulary knows."""


class Case:
    """Student and teacher whole, and this rank's share of them; rows that are padding hold rubbish."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        normal = {"generator": generator, "dtype": torch.float64}
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.hidden, self.weight = torch.randn(TOKENS, HIDDEN, **normal), 2 * torch.randn(VOCABULARY, HIDDEN, **normal)
        self.teacher, self.rows = torch.randn(TOKENS, TEACHERS, **normal), torch.randn(VOCABULARY, TEACHERS, **normal)
        self.labels = torch.randint(0, VOCABULARY, (TOKENS,), generator=generator)
        self.labels[:4] = -1
        count = PADDED_ROWS[self.size] // self.size
        self.begin, self.count = self.rank * count, count
        self.valid = max(0, min(count, VOCABULARY - self.begin))
        self.shard = VocabularyShard(self.begin, self.valid, dist.group.WORLD if self.size > 1 else None)

    def dense(self, *, is_mapped: bool) -> DenseTargets:
        mine = slice(self.begin, self.begin + self.valid)
        if not is_mapped:
            return DenseTargets(self.teacher, self.rows[mine])
        columns = SHARED - self.begin
        columns = columns[(columns >= 0) & (columns < self.valid)]
        return DenseTargets(self.teacher, self.rows[columns + self.begin], columns)

    def sparse(self, *, has_rest: bool) -> SparseTargets:
        p = (self.teacher @ self.rows.t()).softmax(1)
        kept, ids = p.topk(KEPT)
        left = (1.0 - kept.sum(1)) if has_rest else torch.zeros(TOKENS, dtype=p.dtype)
        entropy = -(kept * kept.log()).sum(1) - torch.xlogy(left, left)
        return SparseTargets(ids, kept, entropy, has_rest)

    def expected(self, objective: Objective, divergences) -> tuple[Tensor, ...]:
        """Return loss, cross-entropy, divergence, and gradients of hidden states and matrix."""
        hidden, weight = self.hidden.clone().requires_grad_(), self.weight.clone().requires_grad_()
        logits, live = hidden @ weight.t(), self.labels >= 0
        log_q = logits.log_softmax(1)
        ce = -(log_q.gather(1, self.labels.clamp_min(0).unsqueeze(1)).squeeze(1) * live).sum() / TOKENS
        divergence = objective.temperature**2 * (divergences(logits) * live).sum() / TOKENS
        z = (logits.logsumexp(1).square() * live).sum() / TOKENS
        loss = objective.ce_weight * ce + objective.kl_weight * divergence
        (UPSTREAM * (loss + objective.z_loss * z)).backward()
        assert hidden.grad is not None
        assert weight.grad is not None
        return loss.detach(), ce.detach(), divergence.detach(), hidden.grad, weight.grad

    def check(self, targets: Targets, objective: Objective, divergences) -> None:
        """Compare, for every size of chunk."""
        loss, ce, divergence, hidden_grad, weight_grad = self.expected(objective, divergences)
        rows = torch.full((self.count, HIDDEN), 50.0, dtype=torch.float64)
        rows[: self.valid] = self.weight[self.begin : self.begin + self.valid]
        for elements in (1, 5 * self.count, 10**6):
            chunked_head.CHUNK_ELEMENTS = elements
            hidden, mine = self.hidden.clone().requires_grad_(), rows.clone().requires_grad_()
            found = distillation_loss(hidden, mine, self.labels, self.shard, targets, objective)
            (UPSTREAM * found[0]).backward()
            for name, ours, theirs in (
                ("loss", found[0], loss),
                ("cross-entropy", found[1], ce),
                ("divergence", found[2], divergence),
                ("gradient of hidden states", hidden.grad, hidden_grad),
                ("gradient of rows", mine.grad[: self.valid], weight_grad[self.begin : self.begin + self.valid]),
            ):
                off = (ours - theirs).abs().max() if theirs.numel() else torch.zeros(())
                assert off < TOLERANCE, f"{name} is off by {off:.1e} with {objective}, chunks of {elements}"
            assert mine.grad[self.valid :].eq(0).all(), "padding rows get no gradient"


def divergence_of(teacher: Tensor, student: Tensor, objective: Objective) -> Tensor:
    """Return that of logits [t, n], by the book."""
    log_p = (teacher / objective.temperature).log_softmax(1)
    log_q = (student / objective.temperature).log_softmax(1)
    one, other = (log_p, log_q) if objective.divergence == "forward" else (log_q, log_p)
    return (one.exp() * (one - other)).sum(1)


def compare_dense() -> None:
    case = Case()
    teacher = case.teacher @ case.rows.t()
    for objective in OBJECTIVES:
        case.check(
            case.dense(is_mapped=False), objective, lambda logits, one=objective: divergence_of(teacher, logits, one)
        )
        heard = torch.arange(TOKENS) % 3 > 0
        case.check(
            replace(case.dense(is_mapped=True), heard=heard),
            objective,
            lambda logits, one=objective, heard=heard: (
                divergence_of(teacher[:, SHARED], logits[:, SHARED], one) * heard
            ),
        )


def compare_sparse() -> None:
    case = Case()
    for has_rest, objective in product((False, True), OBJECTIVES):
        if objective.divergence == "reverse":
            continue
        targets = case.sparse(has_rest=has_rest)

        def divergences(logits: Tensor, targets=targets, one=objective) -> Tensor:
            q = (logits / one.temperature).softmax(1)
            kept = q.gather(1, targets.ids)
            p, left = targets.probabilities, 1.0 - targets.probabilities.sum(1)
            found = (p * (p / kept).log()).sum(1)
            return found + left * (left / (1.0 - kept.sum(1))).log() if targets.has_rest else found

        case.check(targets, objective, divergences)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_equals_dense_autograd(ranks: int) -> None:
    """Of three ranks, the last holds nothing but padding."""
    run_ranks(ranks, compare_dense)
    run_ranks(ranks, compare_sparse)


def compare_half_precision() -> None:
    """fp16 keeps gradients of a mean that would round to nothing, as the plain loss does."""
    case = Case()
    hidden, weight = case.hidden.half().requires_grad_(), case.weight.half().requires_grad_()
    targets = DenseTargets(case.teacher.half(), case.rows.half())
    loss, *_ = distillation_loss(hidden, weight, case.labels, case.shard, targets, Objective())
    (loss * 2.0**14).backward()
    expected = case.expected(
        Objective(), lambda logits: divergence_of(case.teacher @ case.rows.t(), logits, Objective())
    )
    scaled = expected[3] / UPSTREAM * 2.0**14
    assert (hidden.grad.double() - scaled).abs().max() < 0.02 * scaled.abs().max()


def test_half_precision() -> None:
    run_ranks(1, compare_half_precision)


def test_a_student_that_equals_its_teacher_has_nothing_to_learn() -> None:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(TOKENS, HIDDEN, generator=generator).requires_grad_()
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator).requires_grad_()
    shard, labels = VocabularyShard(0, VOCABULARY, None), torch.zeros(TOKENS, dtype=torch.int64)
    for objective in OBJECTIVES[::2]:
        targets = DenseTargets(hidden.detach(), weight.detach())
        loss, _, divergence = distillation_loss(hidden, weight, labels, shard, targets, objective)
        assert abs(divergence.item()) < 1e-6, "fp32"
        if objective.ce_weight == 0.0 and objective.z_loss == 0.0:
            (gradient,) = torch.autograd.grad(loss, hidden)
            assert gradient.abs().max() < 1e-6, "fp32"
