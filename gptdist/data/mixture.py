"""Which source sample ``i`` comes from: exact shares in every block, in an order that looks random.

Each block of ``BLOCK`` consecutive samples holds every source exactly as often as its weight says; a keyed shuffle of
the block decides who comes when. So the answer is a pure function of (seed, i), and so is how often each source comes
among the first i samples. A block's shuffle is computed when one of its samples is asked for, which costs the same for
every corpus.
"""

import decimal
import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from gptdist.errors import DataError

BLOCK = 10_000
"""Samples in which the weights hold exactly; also their resolution."""


def weights_by_size(weights: Sequence[float], tokens: Sequence[int], temperature: float | None) -> list[float]:
    """Return weight x tokens^(1/temperature) of each source; the weights alone where no temperature is set.

    The power is taken in decimal arithmetic, which gives the same digits on every machine: the last bit of a libm's
    ``pow`` may differ, and with it the order of all samples after a resume elsewhere.

    **Source**: Xue et al. 2021, "mT5: A Massively Multilingual Pre-trained Text-to-Text Transformer", section 3.2,
    where 1/temperature is called alpha; it goes back to multilingual BERT.
    """
    if temperature is None:
        return list(weights)
    with decimal.localcontext(prec=28):
        exponent = 1 / decimal.Decimal(temperature)
        sizes = [float(decimal.Decimal(count) ** exponent) for count in tokens]
    return [weight * size for weight, size in zip(weights, sizes, strict=True)]


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
            if not count and weight:
                raise DataError(
                    f"data.sources: '{name}' has a share of {weight / total:.2g}, less than 1/{BLOCK} of the samples; "
                    f"raise its weight, set or raise data.temperature, or remove the source"
                )
        self.counts = tuple(counts)
        self._seed = seed
        self._block = lru_cache(maxsize=4)(self._shuffled_block)

    @property
    def shares(self) -> tuple[float, ...]:
        """Fraction of the samples that each source has; they add up to 1."""
        return tuple(count / BLOCK for count in self.counts)

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

    def sample_of(self, source: int, number: int) -> int:
        """Return which sample is number ``number`` of its source, both from 0: the inverse of ``locate``."""
        block, within = divmod(number, self.counts[source])
        sources, _ = self._block(block)
        return block * BLOCK + int(np.flatnonzero(sources == source)[within])

    def counts_among(self, samples: int) -> tuple[int, ...]:
        """Return how many of the first ``samples`` samples each source has, exactly."""
        blocks, rest = divmod(samples, BLOCK)
        if not rest:
            return tuple(blocks * count for count in self.counts)
        begun = np.bincount(self._block(blocks)[0][:rest], minlength=len(self.counts))
        return tuple(blocks * count + int(more) for count, more in zip(self.counts, begun, strict=True))


def _keyed_shuffle(key: str) -> np.ndarray:
    """Return 0 … BLOCK-1 in an order that depends on ``key`` alone: sorted by a random number drawn for each."""
    drawn = np.frombuffer(hashlib.shake_256(key.encode()).digest(8 * BLOCK), dtype="<u8")
    return np.argsort(drawn, kind="stable")
