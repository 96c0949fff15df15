"""Connected components of documents, each found by its first document.

A union-find whose roots are always the smallest number of their set, so the result does not depend on the order of the
pairs. It takes 4 bytes a document (8 above 2 ** 32 of them), 4 more while sizes are counted.
"""

from typing import Any

import numpy as np

from data_prep.compiled import compiled
from data_prep.dedup.records import Array

_LARGEST = 20
_MEMBERS_SHOWN = 5


class Clusters:
    """Sets of documents 0 … ``count - 1``, at first one each."""

    def __init__(self, count: int) -> None:
        self._parents: Array = np.arange(count, dtype=np.uint32 if count < 1 << 32 else np.int64)

    def join(self, one: Array, other: Array) -> None:
        """Join the sets of each pair of documents (int64)."""
        _join(self._parents, one, other)

    def firsts(self) -> Array:
        """Return the first document of each document's set."""
        _settle(self._parents)
        return self._parents


@compiled
def _join(parents: Array, one: Array, other: Array) -> None:
    for pair in range(len(one)):
        left, right = _root(parents, one[pair]), _root(parents, other[pair])
        if left < right:
            parents[right] = left
        elif right < left:
            parents[left] = right


@compiled
def _root(parents: Array, document: int) -> int:
    while parents[document] != document:
        parents[document] = parents[parents[document]]  # halves the path for the next one who walks it
        document = parents[document]
    return document


@compiled
def _settle(parents: Array) -> None:
    for document in range(len(parents)):
        parents[document] = parents[parents[document]]  # a parent comes earlier, so its own is its root by now


def cluster_summary(firsts: Array) -> dict[str, Any]:
    """Return the number of clusters of two or more, their sizes by power of two, and the largest with some members.

    Args:
        firsts: the first document of each document's cluster.
    """
    sizes = _count_members(firsts)
    roots = np.flatnonzero(sizes > 1)
    sizes = sizes[roots].astype(np.int64)
    powers, counts = np.unique(np.frexp(sizes.astype(np.float64))[1] - 1, return_counts=True)
    largest = np.lexsort((roots, -sizes))[:_LARGEST]
    shown = _first_members(firsts, roots[largest], _MEMBERS_SHOWN)
    return {
        "clusters": len(roots),
        "removed": int((sizes - 1).sum()),
        "sizes": {str(1 << power): count for power, count in zip(powers.tolist(), counts.tolist(), strict=True)},
        "largest": [
            {"size": size, "members": [member for member in members if member >= 0]}
            for size, members in zip(sizes[largest].tolist(), shown.tolist(), strict=True)
        ],
    }


@compiled
def _count_members(firsts: Array) -> Array:
    sizes = np.zeros(len(firsts), dtype=np.uint32)
    for first in firsts:
        sizes[first] += 1
    return sizes


@compiled
def _first_members(firsts: Array, roots: Array, most: int) -> Array:
    """The first members of a few clusters, by cluster; -1 where there are fewer."""
    found = np.full((len(roots), most), -1, dtype=np.int64)
    shown = np.zeros(len(roots), dtype=np.int64)
    order = np.argsort(roots)
    ascending = roots[order]
    if not len(roots):
        return found
    for document in range(len(firsts)):
        place = np.searchsorted(ascending, firsts[document])
        if place < len(roots) and ascending[place] == firsts[document]:
            cluster = order[place]
            if shown[cluster] < most:
                found[cluster, shown[cluster]] = document
                shown[cluster] += 1
    return found
