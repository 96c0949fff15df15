"""What is odd about a sample, in plain numbers, beside ordinary samples of the same run; no torch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gptdist.triage.robust import robust_z

NGRAM = 4
"""Tokens of the pieces that are looked for twice in a sample."""

FLOORS = {
    "loss": 0.1,
    "rarity": 0.1,
    "repetition": 0.02,
    "odd_characters": 0.005,
    "same_document": 1.0,
}
"""Least robust deviation of each measure, in its own unit."""

UNITS = {
    "loss": "nats a label",
    "rarity": "bits a token, by how often ordinary samples have it",
    "repetition": f"share of {NGRAM}-token pieces that the sample had before",
    "odd_characters": "share of characters that do not print, or are no text",
    "same_document": "other samples of the batch with a text that this one has",
}

_PLAIN_SPACE = "\n\r\t"
_NO_TEXT = "\ufffd"
"""What a decoder puts where bytes are no text."""


@dataclass(frozen=True)
class Reading:
    """A sample as the model and as people read it."""

    tokens: np.ndarray
    text: str
    digests: frozenset[str] = frozenset()
    """Of the texts of its documents."""


@dataclass(frozen=True)
class Oddness:
    """How odd a sample is."""

    measures: Mapping[str, float]
    z_scores: Mapping[str, float]
    """Robust standard deviations above ordinary samples, of the measures that could be compared."""

    @property
    def suspicion(self) -> float:
        """The largest of them: what samples are sorted by."""
        return max(self.z_scores.values(), default=0.0)

    @property
    def reason(self) -> str:
        """The measure that is oddest; empty where nothing is above ordinary samples."""
        return max(self.z_scores, key=lambda name: self.z_scores[name]) if self.suspicion > 0.0 else ""


def measure(
    batch: Sequence[Reading], ordinary: Sequence[Reading], losses: Sequence[float | None], usual: Sequence[float]
) -> list[Oddness]:
    """Return how odd each sample of ``batch`` is.

    Args:
        batch: the samples of a step.
        ordinary: samples of other steps.
        losses: of each sample of ``batch``; None where it is not known.
        usual: losses that these should be like; empty compares them with each other.
    """
    counts = Counter[int]()
    for one in ordinary:
        counts.update(one.tokens.tolist())
    copies = _copies(batch)
    measured = [_numbers(one, counts, 0) | {"same_document": float(copies[i])} for i, one in enumerate(batch)]
    beside = [_numbers(one, counts, 1) | {"same_document": 0.0} for one in ordinary]
    known = list(usual) or [loss for loss in losses if loss is not None]
    found = []
    for numbers, loss in zip(measured, losses, strict=True):
        z = {name: robust_z(value, [one[name] for one in beside], FLOORS[name]) for name, value in numbers.items()}
        if loss is not None:
            z["loss"] = robust_z(loss, known, FLOORS["loss"])
        measures = numbers if loss is None else {"loss": loss, **numbers}
        found.append(Oddness(measures, {name: value for name, value in z.items() if value is not None}))
    return found


def _numbers(one: Reading, counts: Counter[int], own: int) -> dict[str, float]:
    """Return what can be measured of a sample alone; ``own``: how often it has been counted itself."""
    return {
        "rarity": _rarity(one.tokens, counts, own),
        "repetition": _repetition(one.tokens),
        "odd_characters": _odd_characters(one.text),
    }


def _rarity(tokens: np.ndarray, counts: Counter[int], own: int) -> float:
    """Return the mean of -log2 of each token's share among ordinary samples, where each token counts once more."""
    found, times = np.unique(tokens, return_counts=True)
    others = np.array([counts[int(token)] for token in found]) - own * times
    total = counts.total() - own * len(tokens) + len(counts) + 1
    return float((times * -np.log2((others + 1) / total)).sum() / max(1, len(tokens)))


def _repetition(tokens: np.ndarray) -> float:
    if len(tokens) < NGRAM:
        return 0.0
    pieces = np.lib.stride_tricks.sliding_window_view(tokens, NGRAM)
    return 1.0 - len(np.unique(pieces, axis=0)) / len(pieces)


def _odd_characters(text: str) -> float:
    odd = sum(one == _NO_TEXT or not (one.isprintable() or one in _PLAIN_SPACE) for one in text)
    return odd / max(1, len(text))


def _copies(batch: Sequence[Reading]) -> list[int]:
    """Return for each sample how many others have one of its documents' texts."""
    holders: dict[str, set[int]] = {}
    for index, one in enumerate(batch):
        for digest in one.digests:
            holders.setdefault(digest, set()).add(index)
    return [len(set().union(*(holders[digest] for digest in one.digests)) - {index}) for index, one in enumerate(batch)]
