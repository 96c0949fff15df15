"""Adapters in a checkpoint, and the weights that they make of those beside them."""

from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor

from gptdist.checkpoint.manifest import Manifest, TensorEntry
from gptdist.config.lora import LoraConfig
from gptdist.model.parameters import LORA_A, LORA_B


class Adapters:
    """The products that are to be added to weights; the last one is kept, as a weight is read in pieces."""

    def __init__(self, factors: Mapping[str, tuple[str, str]], scale: float) -> None:
        """Take the names of both factors of each adapted weight, and what their product is multiplied by."""
        self._factors = factors
        self._scale = scale
        self._last: tuple[str, Tensor] | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Return the adapters of a checkpoint, which may be none."""
        names = [entry.name.removesuffix(LORA_A) for entry in manifest.tensors if entry.name.endswith(f".{LORA_A}")]
        if not names:
            return cls.none()
        config = LoraConfig.from_tree(manifest.config["lora"], origin="checkpoint: lora")
        return cls({f"{name}weight": (name + LORA_A, name + LORA_B) for name in names}, config.scale)

    @classmethod
    def none(cls) -> Self:
        """Return no adapters."""
        return cls({}, 0.0)

    @property
    def factor_names(self) -> frozenset[str]:
        """Names of all factors."""
        return frozenset(name for pair in self._factors.values() for name in pair)

    def __contains__(self, name: str) -> bool:
        """Whether weight ``name`` is adapted."""
        return name in self._factors

    def add_to(self, target: Tensor, entry: TensorEntry, weight: Callable[[str], Tensor], at: tuple[int, int]) -> None:
        """Add the product to a part of a weight.

        Args:
            target: values of a flat slice from some place on.
            entry: of the weight.
            weight: returns a whole tensor.
            at: number of the slice, and first value in it.
        """
        if self._last is None or self._last[0] != entry.name:
            a, b = (weight(factor) for factor in self._factors[entry.name])
            self._last = entry.name, (self._scale * (b @ a)).view(entry.outer, entry.length, entry.inner)
        index, start = at
        piece = self._last[1][:, index * entry.slice_length : (index + 1) * entry.slice_length].reshape(-1)
        with torch.no_grad():
            target += piece[start : start + target.numel()]
