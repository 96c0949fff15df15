"""A batch of tokens on a device.

Letters: b micro batch, s sequence.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from gptdist.data.rules import SampleRules

_ALL_COUNTS = SampleRules()


@dataclass(frozen=True)
class Batch:
    """Tokens and what follows each of them, both [b, s] int64; a label below 0 does not count in the loss."""

    tokens: Tensor
    labels: Tensor
    document_end: int | None = None
    """Token that ends a document, where documents of a sample are to know nothing of each other."""

    @classmethod
    def of(cls, rows: list[np.ndarray], device: torch.device, rules: SampleRules = _ALL_COUNTS) -> Self:
        """Cut ``rows``, each of s + 1 tokens, into inputs and labels."""
        stacked = np.stack(rows)
        block = torch.from_numpy(stacked.astype(np.int64, copy=False)).to(device)
        if rules.loss_mask is None:
            labels = block[:, 1:].contiguous()
        else:
            labels = torch.from_numpy(rules.loss_mask.labels(stacked)).to(device)
        return cls(block[:, :-1].contiguous(), labels, rules.document_end)

    def positions(self) -> Tensor:
        """Return each token's place in its sample, or in its document if those are apart, [b, s]."""
        batch, sequence = self.tokens.shape
        places = torch.arange(sequence, device=self.tokens.device).unsqueeze(0).expand(batch, sequence)
        if self.document_end is None:
            return places
        begins = torch.zeros_like(self.tokens)
        begins[:, 1:] = torch.where(self.tokens[:, :-1] == self.document_end, places[:, 1:], 0)
        return places - begins.cummax(dim=1).values

    def attention_mask(self) -> Tensor | None:
        """Return which tokens (last dimension) each token attends to, bool [b, 1, s, s]; None is all before it.

        The token that ends a document is the last of it.
        """
        if self.document_end is None:
            return None
        ends = (self.tokens == self.document_end).long()
        document = ends.cumsum(dim=1) - ends
        same = document.unsqueeze(2) == document.unsqueeze(1)
        return same.tril().unsqueeze(1)
