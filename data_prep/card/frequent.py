"""The most frequent keys of a stream of any length, exactly, in bounded memory and two passes.

The first pass counts buckets of hashes: a bucket's count is never less than that of a key in it. The second pass
counts the keys of the fullest buckets one by one; a key there that is at least as frequent as the fullest bucket left
out is more frequent than every key left out.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

_BUCKET_BITS = 20
_HEAVY_BUCKETS = 4096


class FrequentKeys:
    """Which keys can be among the most frequent.

    Args:
        bucket_bits: 2 to this power buckets of 8 bytes each.
        heavy_buckets: how many of them the second pass looks into.
    """

    def __init__(self, bucket_bits: int = _BUCKET_BITS, heavy_buckets: int = _HEAVY_BUCKETS) -> None:
        self._shift = np.uint64(64 - bucket_bits)
        self._counts = np.zeros(1 << bucket_bits, np.int64)
        self._is_heavy: npt.NDArray[np.bool_] | None = None
        self._heavy_buckets = heavy_buckets
        self.missed_at_most = 0
        """After ``settle``: no key left out is more frequent."""

    def note(self, hashes: npt.NDArray[np.uint64], counts: npt.NDArray[np.int64]) -> None:
        """First pass: keys with these 64-bit hashes came up so many times more."""
        np.add.at(self._counts, self._buckets(hashes), counts)

    def settle(self) -> None:
        """End the first pass."""
        order = np.argsort(-self._counts, kind="stable")
        heavy, rest = order[: self._heavy_buckets], order[self._heavy_buckets :]
        self._is_heavy = np.zeros(self._counts.size, np.bool_)
        self._is_heavy[heavy] = True
        self.missed_at_most = int(self._counts[rest[0]]) if rest.size else 0

    def heavy(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Second pass: which keys are to be counted one by one."""
        assert self._is_heavy is not None, "heavy() before settle()"
        return self._is_heavy[self._buckets(hashes)]

    def num_keys(self) -> int:
        """Return about how many different keys there are (linear counting).

        Source: Whang et al. 1990, "A Linear-Time Probabilistic Counting Algorithm for Database Applications".
        """
        empty = int(np.count_nonzero(self._counts == 0))
        size = self._counts.size
        return round(size * np.log(size / max(1, empty)))

    def _buckets(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[Any]:
        return (hashes >> self._shift).astype(np.int64)
