"""Which source sample ``i`` comes from: exact shares in every block, in an order that looks random.

Each block of ``BLOCK`` consecutive samples holds every source exactly as often as its weight says; inside the block a
keyed permutation decides who comes when. So the answer is a pure function of (seed, i), and no count is kept.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

from gptdist.data.permutation import KeyedPermutation
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
        self._begins = (0, *accumulate(counts))
        self._seed = seed
        self._order_of_block = lru_cache(maxsize=4)(self._make_order)

    def _make_order(self, block: int) -> KeyedPermutation:
        return KeyedPermutation(BLOCK, f"{self._seed}/mixture/{block}")

    def locate(self, sample: int) -> tuple[int, int]:
        """Return the source of sample ``sample``, and how many samples of that source come before it in the order.

        The second number counts whole blocks and then the place inside this one, so that the samples of a source are
        numbered without gaps and without repeats.
        """
        block, place = divmod(sample, BLOCK)
        slot = self._order_of_block(block)[place]
        source = next(k for k, end in enumerate(self._begins[1:]) if slot < end)
        return source, block * self.counts[source] + slot - self._begins[source]
