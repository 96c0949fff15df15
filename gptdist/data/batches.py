"""A batch of tokens on a device.

Letters: b micro batch, s sequence.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Tokens and what follows each of them, both [b, s] int64."""

    tokens: Tensor
    labels: Tensor

    @classmethod
    def of(cls, rows: list[np.ndarray], device: torch.device) -> Self:
        """Cut ``rows``, each of s + 1 tokens, into inputs and labels."""
        block = torch.from_numpy(np.stack(rows).astype(np.int64, copy=False)).to(device)
        return cls(tokens=block[:, :-1].contiguous(), labels=block[:, 1:].contiguous())

    def positions(self) -> Tensor:
        """Return each token's place in its sample, [b, s]."""
        batch, sequence = self.tokens.shape
        return torch.arange(sequence, device=self.tokens.device).unsqueeze(0).expand(batch, sequence)
