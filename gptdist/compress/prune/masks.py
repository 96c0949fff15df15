"""Which of some weights have the lowest scores: what is to become zero."""

import torch
from torch import Tensor

from gptdist.compress.prune.options import Pattern


def lowest(scores: Tensor, count: int) -> Tensor:
    """Return bool of the shape of ``scores``: the ``count`` lowest along the last axis; of equal ones the first."""
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    if count:
        order = scores.argsort(dim=-1, stable=True)[..., :count]
        chosen.scatter_(-1, order, True)
    return chosen


def lowest_of_all(scores: Tensor, ratio: float) -> Tensor:
    """Return the share ``ratio`` of the lowest ``scores``, wherever they are."""
    return lowest(scores.reshape(-1), round(ratio * scores.numel())).view(scores.shape)


def lowest_of_rows(scores: Tensor, ratio: float) -> Tensor:
    """Return the share ``ratio`` of the lowest ``scores`` in each row."""
    return lowest(scores, round(ratio * scores.shape[-1]))


def lowest_of_groups(scores: Tensor, pattern: Pattern) -> Tensor:
    """Return the lowest of every ``pattern.of`` neighbours in a row, of which ``pattern.kept`` are left out."""
    groups = scores.unflatten(-1, (-1, pattern.of))
    return lowest(groups, pattern.of - pattern.kept).flatten(-2)
