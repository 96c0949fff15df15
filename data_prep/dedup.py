"""Exact deduplication: a text that was kept before, in its own or an earlier source, is dropped."""

from collections.abc import Iterable, Iterator

import numpy as np

from data_prep.document import Document, Stage
from data_prep.funnel import Funnel

_RECENT = 1 << 16
_HALVES = np.dtype([("high", ">u8"), ("low", ">u8")])
"""A digest as two integers that sort as its bytes do."""


class DigestSet:
    """A set of 16-byte digests that takes 16 bytes for each, once it is large.

    New digests go to a Python set; when that is full, its content becomes a sorted array, and arrays of similar size
    are merged, so that there are few to search.
    """

    def __init__(self, recent: int = _RECENT) -> None:
        self._limit = recent
        self._recent: set[bytes] = set()
        self._runs: list[np.ndarray] = []

    def __contains__(self, digest: object) -> bool:
        if not isinstance(digest, bytes):
            return False
        return digest in self._recent or any(_holds(run, digest) for run in self._runs)

    def __len__(self) -> int:
        return len(self._recent) + sum(len(run) for run in self._runs)

    def add(self, digest: bytes) -> None:
        """Put in a digest that is not in the set yet."""
        self._recent.add(digest)
        if len(self._recent) >= self._limit:
            self._fold()

    def update(self, digests: Iterable[bytes]) -> None:
        """Put in digests, whether or not they are there."""
        for digest in digests:
            if digest not in self:
                self.add(digest)

    def _fold(self) -> None:
        run = np.frombuffer(b"".join(sorted(self._recent)), dtype=_HALVES)
        self._recent = set()
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            both = np.concatenate([self._runs.pop(), run]).astype(_HALVES)  # concatenation alone swaps the bytes
            run = both[np.lexsort((both["low"], both["high"]))]
        self._runs.append(np.ascontiguousarray(run))


def _holds(run: np.ndarray, digest: bytes) -> bool:
    """Whether the sorted ``run`` holds ``digest``, by bisection without a copy of a column."""
    low, high = 0, len(run)
    while low < high:
        middle = (low + high) // 2
        if run[middle].tobytes() < digest:
            low = middle + 1
        else:
            high = middle
    return low < len(run) and run[low].tobytes() == digest


def dedup_stage(seen: DigestSet, funnel: Funnel) -> Stage:
    """Return the stage that drops documents whose digest is in ``seen`` and adds the others to it."""

    def stage(documents: Iterator[Document]) -> Iterator[Document]:
        for document in documents:
            if document.digest in seen:
                funnel.drop("duplicate")
                continue
            seen.add(document.digest)
            yield document

    return stage
