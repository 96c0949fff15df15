"""What one micro batch is to learn from a teacher; an output head that has one gives its loss while it trains.

Letters: t tokens, h hidden, v vocabulary rows of this rank.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gptdist.model.chunked_head import VocabularyShard
from gptdist.model.distillation_loss import Objective, Targets, distillation_loss


@dataclass(frozen=True)
class Lesson:
    """A teacher's answer to the tokens of one micro batch."""

    objective: Objective
    targets: Targets
    report: Callable[[Tensor], None]
    """Is told [3]: mean cross-entropy, T^2 x divergence and weighted terms on hidden states, nats a token."""

    hidden_terms: Callable[[Tensor], Tensor] | None = None
    """Given labels [t], returns the weighted terms on hidden states, which the forward pass has left."""

    def loss(self, hidden: Tensor, weight: Tensor, labels: Tensor, shard: VocabularyShard) -> Tensor:
        """Return what is minimised. Shapes: hidden [t, h], weight [v, h], labels [t] -> []."""
        loss, ce, divergence = distillation_loss(hidden, weight, labels, shard, self.targets, self.objective)
        terms = torch.zeros_like(loss) if self.hidden_terms is None else self.hidden_terms(labels)
        self.report(torch.stack([ce, divergence, terms.detach()]))
        return loss + terms
