"""Which source sample ``i`` comes from: exact shares in every block, in an order that looks random.

Each block of ``BLOCK`` consecutive samples holds every source exactly as often as its weight says; a keyed shuffle of
the block decides who comes when. So the answer is a pure function of (seed, i). A block's shuffle is computed when one
of its samples is asked for, which costs the same for every corpus.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from gptdist.errors import DataError

BLOCK = 10_000
"""Samples in which the weights hold exactly; also their resolution."""


class Mixture:
    """Shares of several sources in one stream of samples."""

    def __init__(self, weights: Sequence[float], seed: int, names: Sequence[str]) -> None:
        """Round ``weights`` to whole samples a block, largest remainder first.

        Raises:
            DataError: a source is so light that no block would hold a sample of it.
        """
        total = sum(weights)
        shares = [BLOCK * weight / total for weight in weights]
        counts = [int(share) for share in shares]
        by_remainder = sorted(range(len(shares)), key=lambda k: (counts[k] - shares[k], k))
        for k in by_remainder[: BLOCK - sum(counts)]:
            counts[k] += 1
        for name, count, weight in zip(names, counts, weights, strict=True):
            if not count:
                raise DataError(
                    f"data.sources: weight {weight} of '{name}' is less than 1/{BLOCK} of the total {total}; "
                    f"raise it or remove the source"
                )
        self.counts = tuple(counts)
        self._seed = seed
        self._block = lru_cache(maxsize=4)(self._shuffled_block)

    def _shuffled_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Return for each place of a block its source, and how often that source stands before it in the block."""
        ordered = np.repeat(np.arange(len(self.counts)), self.counts)
        sources = ordered[_keyed_shuffle(f"{self._seed}/mixture/{block}")]
        earlier = np.empty(BLOCK, dtype=np.int64)
        for source, count in enumerate(self.counts):
            earlier[sources == source] = np.arange(count)
        return sources, earlier

    def locate(self, sample: int) -> tuple[int, int]:
        """Return the source of sample ``sample``, and how many samples of that source come before it."""
        block, place = divmod(sample, BLOCK)
        sources, earlier = self._block(block)
        source = int(sources[place])
        return source, block * self.counts[source] + int(earlier[place])


def _keyed_shuffle(key: str) -> np.ndarray:
    """Return 0 … BLOCK-1 in an order that depends on ``key`` alone: sorted by a random number drawn for each."""
    drawn = np.frombuffer(hashlib.shake_256(key.encode()).digest(8 * BLOCK), dtype="<u8")
    return np.argsort(drawn, kind="stable")
