"""Log-likelihoods that a transformers model gives to tokens.

Letters: b rows, s tokens, v vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

LOGIT_BYTES = 256 * 2**20
"""Most memory for the fp32 logits of one forward."""

_UNCOUNTED = -100
"""Label of padding."""


@dataclass(frozen=True)
class Continuation:
    """What a model makes of a continuation."""

    log_likelihood: float
    """ln p(continuation | context), nats."""

    is_greedy: bool
    """Whether each of its tokens is the likeliest."""


@dataclass(frozen=True)
class Totals:
    """Sums over windows."""

    nats: float
    tokens: int
    text_bytes: int

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(self.nats + other.nats, self.tokens + other.tokens, self.text_bytes + other.text_bytes)

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Nats / ln 2 / UTF-8 bytes of the predicted tokens."""
        return self.nats / math.log(2) / self.text_bytes


@dataclass(frozen=True)
class Fidelity:
    """How close a model is to another one."""

    mean_kl: float
    """KL(reference || model), nats a token."""

    top1_agreement: float
    """Fraction of the tokens after which both find the same token likeliest."""

    tokens: int


def score_windows(model: Any, windows: Sequence[np.ndarray], token_bytes: np.ndarray) -> Totals:
    """Return sums over the tokens of ``windows`` but the first of each, which nothing predicts.

    Args:
        model: of transformers; called in the mode it is in.
        windows: token ids, each of at least two and at most as many as the model knows positions, and one more.
        token_bytes: UTF-8 bytes that each id stands for.
    """
    found = Totals(0.0, 0, 0)
    for rows in _batches(model, windows):
        logits, labels = _forward(model, rows)
        nats = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=_UNCOUNTED, reduction="none"
        )
        counted = labels[labels != _UNCOUNTED].cpu().numpy()
        found += Totals(float(nats.double().sum()), counted.size, int(token_bytes[counted].sum()))
    return found


def score_continuations(model: Any, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Continuation]:
    """Return what ``model`` makes of each continuation of a context, both token ids and neither empty.

    Contexts that are too long for the model lose their beginning.
    """
    limit = int(model.config.max_position_embeddings) + 1
    rows = [np.array([*context, *continuation][-limit:]) for context, continuation in pairs]
    counts = [min(len(pair[1]), len(row) - 1) for pair, row in zip(pairs, rows, strict=True)]
    found = []
    place = 0
    for batch in _batches(model, rows):
        logits, labels = _forward(model, batch)
        for index, row in enumerate(batch):
            part = slice(len(row) - 1 - counts[place], len(row) - 1)
            logs, wanted = logits[index, part].log_softmax(-1), labels[index, part]
            picked = logs.gather(1, wanted.unsqueeze(1)).double().sum()
            found.append(Continuation(float(picked), bool((logs.argmax(-1) == wanted).all())))
            place += 1
    return found


def compare_windows(reference: Any, model: Any, windows: Sequence[np.ndarray]) -> Fidelity:
    """Return how close ``model`` is to ``reference``, which has the same vocabulary, over all tokens of ``windows``."""
    nats, same, tokens = 0.0, 0, 0
    for rows in _batches(model, windows):
        ours, labels = _forward(model, rows)
        theirs, _ = _forward(reference, rows)
        counted = labels != _UNCOUNTED
        width = min(ours.shape[-1], theirs.shape[-1])  # vocabulary padding
        logs = [logits[counted][:, :width].log_softmax(-1) for logits in (theirs, ours)]
        nats += float(functional.kl_div(logs[1], logs[0], reduction="sum", log_target=True).double())
        same += int((logs[0].argmax(-1) == logs[1].argmax(-1)).sum())
        tokens += int(counted.sum())
    return Fidelity(max(0.0, nats / tokens), same / tokens, tokens)


def _batches(model: Any, rows: Sequence[np.ndarray]) -> Iterator[Sequence[np.ndarray]]:
    """Cut ``rows``, in their order, into as large batches as their logits may be."""
    longest = max(map(len, rows), default=1)
    size = max(1, LOGIT_BYTES // (4 * longest * int(model.config.vocab_size)))
    for first in range(0, len(rows), min(size, 16)):
        yield rows[first : first + min(size, 16)]


def _forward(model: Any, rows: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Return fp32 logits [b, s, v] and labels [b, s]; what pads on the right is never attended to."""
    length = max(map(len, rows)) - 1
    tokens = torch.zeros(len(rows), length, dtype=torch.int64)
    labels = torch.full((len(rows), length), _UNCOUNTED)
    for index, row in enumerate(rows):
        ids = torch.from_numpy(np.asarray(row, dtype=np.int64))
        tokens[index, : len(row) - 1], labels[index, : len(row) - 1] = ids[:-1], ids[1:]
    with torch.inference_mode():
        logits = model(tokens.to(model.device)).logits.float()
    return logits, labels.to(logits.device)
