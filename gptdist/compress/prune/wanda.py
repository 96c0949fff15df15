"""Wanda: a weight counts as much as its size times the length of its input over the calibration tokens.

Letters: t tokens, r rows of a matrix, i inputs.
"""

import torch
from torch import Tensor

from gptdist.compress.prune.masks import lowest_of_groups, lowest_of_rows
from gptdist.compress.prune.options import WeightOptions


class InputNorms:
    """What is seen of one matrix's inputs: the sum of squares of each."""

    def __init__(self, width: int, device: torch.device) -> None:
        """Begin with no token of ``width`` inputs."""
        self._squares = torch.zeros(width, dtype=torch.float64, device=device)
        self.tokens = 0

    @property
    def is_finite(self) -> bool:
        """Whether everything that was seen is."""
        return bool(torch.isfinite(self._squares).all())

    def add(self, x: Tensor) -> None:
        """See more tokens, [t, i]."""
        self._squares += x.square().sum(0)
        self.tokens += x.shape[0]

    def prune(self, matrix: Tensor, options: WeightOptions) -> Tensor:
        """Return a copy of ``matrix`` [r, i] with zeros; within each row the weights of the lowest scores.

        Source: Sun et al. 2023, "A Simple and Effective Pruning Approach for Large Language Models", arXiv 2306.11695,
        section 3, equation 1 and the comparison group of a row.
        """
        scores = matrix.abs() * self._squares.sqrt().to(matrix.dtype)
        if options.groups is not None:
            return matrix.masked_fill(lowest_of_groups(scores, options.groups), 0.0)
        assert options.ratio is not None, "checked before"
        return matrix.masked_fill(lowest_of_rows(scores, options.ratio), 0.0)
