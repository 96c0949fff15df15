"""SparseGPT: weights become zero column by column, and those behind them make up for it.

Letters: t tokens, r rows of a matrix, i inputs, b inputs of a block.
"""

import torch
from torch import Tensor

from gptdist.compress.prune.masks import lowest_of_all, lowest_of_groups
from gptdist.compress.prune.options import WeightOptions

BLOCK = 128
"""Columns whose zeros are chosen at once, and after which the rest of the matrix is brought up to date."""

DAMPING = 0.01
"""Of the mean of the products' diagonal, added to the diagonal."""


class InputProducts:
    """What is seen of one matrix's inputs: the products of each two, summed over tokens."""

    def __init__(self, width: int, device: torch.device) -> None:
        """Begin with no token of ``width`` inputs."""
        self._products = torch.zeros(width, width, device=device)
        self._factor: Tensor | None = None
        self.tokens = 0

    @property
    def is_finite(self) -> bool:
        """Whether everything that was seen is."""
        return bool(torch.isfinite(self._products).all())

    def add(self, x: Tensor) -> None:
        """See more tokens, [t, i]."""
        self._products.addmm_(x.t(), x)
        self.tokens += x.shape[0]
        self._factor = None

    def prune(self, matrix: Tensor, options: WeightOptions) -> Tensor:
        """Return ``matrix`` [r, i] with zeros, and with other weights where they make up for them.

        Of each block of columns the weights go whose removal costs least, w^2 / c^2, where c is the diagonal of the
        inverse's factor; with a pattern, of each group of neighbours. Weights whose input was always zero go first.

        Source: Frantar and Alistarh 2023, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
        arXiv 2301.00774, algorithm 1 and section 3.3.
        """
        factor = self._upper_factor()
        weights = matrix.clone()
        weights[:, self._products.diagonal() == 0] = 0.0
        size = BLOCK if options.groups is None else max(BLOCK - BLOCK % options.groups.of, options.groups.of)
        for begin in range(0, weights.shape[1], size):
            block = slice(begin, min(begin + size, weights.shape[1]))
            errors = _prune_block(weights[:, block], factor[block, block], options)
            weights[:, block.stop :] -= errors @ factor[block, block.stop :]
        return weights

    def _upper_factor(self) -> Tensor:
        """Return the upper Cholesky factor of the damped products' inverse, [i, i].

        The factor 2 of the paper's H cancels. In fp64: an inverse in fp32 of few tokens' products may not be positive.
        """
        if self._factor is None:
            damped = self._products.double()
            diagonal = damped.diagonal()
            diagonal[diagonal == 0] = 1.0  # inputs that are always zero, whose weights are zero too
            diagonal += DAMPING * diagonal.mean()
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
            self._factor = torch.linalg.cholesky(inverse, upper=True).to(self._products.dtype)
        return self._factor


def _prune_block(weights: Tensor, factor: Tensor, options: WeightOptions) -> Tensor:
    """Prune the columns [r, b] in place, and return their errors, by which later blocks are to move.

    A column's weights that become zero move all columns behind it in the block, and never those before.
    """
    errors = torch.zeros_like(weights)
    pattern, gone = options.groups, torch.zeros_like(weights, dtype=torch.bool)
    diagonal = factor.diagonal()
    if pattern is None:
        assert options.ratio is not None, "checked before"
        gone = lowest_of_all((weights / diagonal).square(), options.ratio)
    for column in range(weights.shape[1]):
        if pattern is not None and column % pattern.of == 0:
            group = slice(column, column + pattern.of)
            gone[:, group] = lowest_of_groups((weights[:, group] / diagonal[group]).square(), pattern)
        errors[:, column] = torch.where(gone[:, column], weights[:, column], 0.0) / diagonal[column]
        weights[:, column:] -= errors[:, column, None] * factor[column, column:]
        weights[:, column].masked_fill_(gone[:, column], 0.0)  # what is left is rounding
    return errors
