"""Small weights become zero: element by element, one tensor in memory at a time."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from gptdist.compress.prune.masks import lowest_of_all, lowest_of_groups
from gptdist.compress.prune.options import WeightOptions
from gptdist.config.model import ModelConfig
from gptdist.errors import CheckpointError, ConfigError
from gptdist.model.parameters import matrices_of

_HIGH_BITS = 1 << 15
"""How many values the upper half of the bits of an absolute value has."""

_LOW_BITS = 1 << 16


@dataclass
class _Cut:
    """The smallest weights of several tensors: all below ``value``, and the first ``ties`` that are equal to it."""

    value: float
    ties: int

    def mask(self, sizes: Tensor) -> Tensor:
        """Return which of the next tensor's weights are meant; tensors come in the same order as before."""
        equal = sizes == self.value
        first = equal & (equal.flatten().cumsum(0).view(sizes.shape) <= self.ties)
        self.ties -= int(first.sum())
        return (sizes < self.value) | first


class MagnitudePruner:
    """Prunes tensors that are read one at a time; the same each time that they are asked for in their order."""

    def __init__(
        self, names: Iterable[str], read: Callable[[str], Tensor], model: ModelConfig, options: WeightOptions
    ) -> None:
        """Look at all tensors once if they are compared with each other.

        Args:
            names: of the matrices to prune, in their order.
            read: returns one of them whole, a copy.
            model: that they belong to.
            options: what becomes zero.

        Raises:
            CheckpointError: a weight is not finite.
        """
        self._names, self._model, self._options = list(names), model, options
        self._read = read
        self._cut: _Cut | None = None
        self._found = _smallest(self._names, self.whole, options.ratio) if self._is_global else None

    @property
    def _is_global(self) -> bool:
        return self._options.scope == "global" and self._options.ratio is not None

    def whole(self, name: str) -> Tensor:
        """Return tensor ``name`` before pruning.

        Raises:
            CheckpointError: a weight is not finite.
        """
        return finite(name, self._read(name))

    def pruned(self, name: str) -> Tensor:
        """Return tensor ``name`` with zeros; every one is asked for in turn, from the first, as often as wanted."""
        whole = self.whole(name)
        if self._found is not None:
            if name == self._names[0]:
                self._cut = _Cut(*self._found)
            assert self._cut is not None, f"{name} comes before {self._names[0]}"
            return whole.masked_fill_(self._cut.mask(whole.abs()), 0.0)
        for part in matrices_of(whole, name, self._model):
            part.masked_fill_(self._mask(part), 0.0)
        return whole

    def _mask(self, part: Tensor) -> Tensor:
        sizes, options = part.abs(), self._options
        if options.threshold is not None:
            return sizes < options.threshold
        if options.groups is not None:
            return lowest_of_groups(sizes, options.groups)
        assert options.ratio is not None, "checked before"
        if part.dim() == 3:  # experts, each for itself
            return torch.stack([lowest_of_all(expert, options.ratio) for expert in sizes])
        return lowest_of_all(sizes, options.ratio)


def finite(name: str, weight: Tensor) -> Tensor:
    """Return ``weight``.

    Raises:
        CheckpointError: a value is not finite.
    """
    if not bool(torch.isfinite(weight).all()):
        raise CheckpointError(f"{name}: holds numbers that are not finite; take weights from before they diverged")
    return weight


def require_some(zeros: int, total: int, threshold: float) -> None:
    """Refuse a threshold that leaves no weight, or all.

    Raises:
        ConfigError: it does.
    """
    if zeros in (0, total):
        what = "no weight is smaller: raise it" if not zeros else "all weights are smaller: lower it"
        raise ConfigError([f"--threshold: {threshold:g} of {total:,} weights: {what}"])


def _smallest(names: list[str], read: Callable[[str], Tensor], ratio: float | None) -> tuple[float, int]:
    """Return the largest of the smallest ``ratio`` of all weights by absolute value, and how many equal ones belong.

    The bits of absolute values stand in the order of the values: they are counted by their upper half, and, where the
    one that is looked for lies, by their lower half. So two passes find it exactly, whatever their number.
    """
    assert ratio is not None, "asked before"
    upper = torch.zeros(_HIGH_BITS, dtype=torch.int64)
    for name in names:
        upper += torch.bincount(_bits(read(name)) // _LOW_BITS, minlength=_HIGH_BITS)
    wanted = round(ratio * int(upper.sum()))
    high, below = _place(upper, wanted)
    lower = torch.zeros(_LOW_BITS, dtype=torch.int64)
    for name in names:
        bits = _bits(read(name))
        lower += torch.bincount(bits[bits // _LOW_BITS == high] % _LOW_BITS, minlength=_LOW_BITS)
    low, below_too = _place(lower, wanted - below)
    value = torch.tensor(high * _LOW_BITS + low, dtype=torch.int32).view(torch.float32)
    return float(value), wanted - below - below_too


def _bits(weight: Tensor) -> Tensor:
    return weight.reshape(-1).abs().view(torch.int32).long()


def _place(counts: Tensor, wanted: int) -> tuple[int, int]:
    """Return the bin that holds the ``wanted``-th value, from 1, and how many stand in bins before it."""
    totals = counts.cumsum(0)
    index = int(torch.searchsorted(totals, max(wanted, 1)))
    return index, int(totals[index - 1]) if index else 0
