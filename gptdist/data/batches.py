"""A batch of tokens on a device.

Letters: b micro batch, s sequence, c context-parallel size.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from gptdist.data.label_mask import token_ids
from gptdist.data.rules import LossMask, SampleRules
from gptdist.mesh.context import WHOLE, ContextPart

_ALL_COUNTS = SampleRules()
_NO_MASK = LossMask()


def cut_rows(rows: list[np.ndarray], seq_length: int) -> list[np.ndarray]:
    """Return ``rows`` of tokens in pieces of ``seq_length`` inputs and the label after them: each label stays one."""
    return [row[begin : begin + seq_length + 1] for row in rows for begin in range(0, len(row) - 1, seq_length)]


@dataclass(frozen=True)
class Batch:
    """A rank's tokens and what follows each of them, [b, s / c] int64; a label below 0 does not count in the loss."""

    tokens: Tensor
    labels: Tensor
    samples: Tensor
    """All tokens, [b, s]."""

    part: ContextPart = WHOLE
    """Which of them are this rank's."""

    document_end: int | None = None
    """Token that ends a document, where documents of a sample are to know nothing of each other."""

    @classmethod
    def of(
        cls,
        rows: list[np.ndarray],
        device: torch.device,
        rules: SampleRules = _ALL_COUNTS,
        part: ContextPart = WHOLE,
    ) -> Self:
        """Cut ``rows``, each of s + 1 tokens, into inputs and labels, and keep ``part`` of them.

        ``~id`` in a row is a token that does not count as a label.
        """
        stacked = np.stack(rows).astype(np.int64, copy=False)
        labels = torch.from_numpy((rules.loss_mask or _NO_MASK).labels(stacked)).to(device)
        samples = torch.from_numpy(token_ids(stacked)[:, :-1]).to(device).contiguous()
        return cls(part.of(samples, 1), part.of(labels, 1), samples, part, rules.document_end)

    def positions(self) -> Tensor:
        """Return each token's place in its sample, or in its document if those are apart, [b, s / c]."""
        batch, sequence = self.samples.shape
        places = torch.arange(sequence, device=self.samples.device).unsqueeze(0).expand(batch, sequence)
        if self.document_end is None:
            return self.part.of(places, 1)
        begins = torch.zeros_like(self.samples)
        begins[:, 1:] = torch.where(self.samples[:, :-1] == self.document_end, places[:, 1:], 0)
        return self.part.of(places - begins.cummax(dim=1).values, 1)

    def attention_mask(self) -> Tensor | None:
        """Return which tokens (last dimension) each token attends to, bool [b, 1, s / c, s]; None is all before it.

        The token that ends a document is the last of it.
        """
        if self.document_end is None:
            return None
        ends = (self.samples == self.document_end).long()
        document = ends.cumsum(dim=1) - ends
        same = self.part.of(document, 1).unsqueeze(2) == document.unsqueeze(1)
        place = torch.arange(self.samples.shape[1], device=self.samples.device)
        return (same & (self.part.of(place, 0).unsqueeze(1) >= place)).unsqueeze(1)
