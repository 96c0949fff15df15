"""Best-fit-decreasing packing: no document is cut that fits into a training sample, in O(n log L).

Source: Ding et al. 2024, "Fewer Truncations Improve Language Modeling", section 3.
"""

from dataclasses import dataclass

import numpy as np

from data_prep.compiled import compiled

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Arrangement:
    """Pieces of documents in the order in which they are written."""

    document: np.ndarray
    """Number of the document that the piece is of."""

    piece: np.ndarray
    """Number of the piece in its document, from 0."""

    begin: np.ndarray
    """First token of the piece in its document."""

    tokens: np.ndarray
    padding: np.ndarray
    """End-of-document tokens behind the piece that fill its sample."""


def concatenated(lengths: np.ndarray) -> Arrangement:
    """Return documents one after the other, uncut."""
    nothing = np.zeros(lengths.size, dtype=np.int64)
    return Arrangement(np.arange(lengths.size), nothing, nothing, lengths, nothing)


def best_fit(lengths: np.ndarray, keys: np.ndarray, seq_length: int) -> Arrangement:
    """Lay documents into samples of ``seq_length`` tokens.

    A document longer than a sample is cut into whole samples and a rest; rests and shorter documents go, the longest
    first, each into the fullest sample that has room. Samples then follow each other by a hash of a document in them,
    and within a sample pieces lie by key: nothing is ordered by length.

    Args:
        lengths: tokens of each document, int64, at least 1.
        keys: its place in the random order, uint64.
        seq_length: tokens of a sample.
    """
    pieces = -(-lengths // seq_length)
    document = np.repeat(np.arange(lengths.size), pieces)
    piece = np.arange(document.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = piece * seq_length
    tokens = np.minimum(lengths[document] - begin, seq_length)
    ranks = _mixed(keys[document] + piece.astype(np.uint64) * _GOLDEN)
    # Equal lengths by a hash: by key, the last of one length meets the first of the next, and the shorter lies first.
    bins, count = _fit(tokens, np.lexsort((_mixed(ranks), -tokens)), seq_length)
    first = np.empty(count, dtype=np.int64)
    first[bins[::-1]] = np.arange(bins.size)[::-1]  # backwards: the first piece is what stays
    places = np.empty(count, dtype=np.int64)
    places[np.argsort(ranks[first], kind="stable")] = np.arange(count)
    order = np.argsort(places[bins], kind="stable")
    filled = np.zeros(count, dtype=np.int64)
    np.add.at(filled, bins, tokens)
    sorted_bins = bins[order]
    is_last = np.concatenate([sorted_bins[1:] != sorted_bins[:-1], [True]])
    padding = np.where(is_last, seq_length - filled[sorted_bins], 0)
    return Arrangement(document[order], piece[order], begin[order], tokens[order], padding)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Return a hash of each, uint64: splitmix64's finaliser."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@compiled
def _fit(sizes: np.ndarray, order: np.ndarray, capacity: int) -> tuple[np.ndarray, int]:
    """Return the bin of each piece, and the number of bins.

    ``tree`` is a binary tree over the room left in a bin, 0 … capacity: a node says whether any bin is below it. Bins
    with equal room are a chain; the one that came last is taken first.
    """
    width = 1
    while width <= capacity:
        width *= 2
    tree = np.zeros(2 * width, np.uint8)
    head = np.full(capacity + 1, -1, np.int64)
    following = np.full(sizes.size, -1, np.int64)
    bins = np.empty(sizes.size, np.int64)
    count = 0
    for piece in order:
        room = _least_room(tree, width, sizes[piece])
        if room > 0:
            chosen = head[room]
            head[room] = following[chosen]
            if head[room] < 0:
                _clear(tree, width + room)
        else:
            room, chosen = capacity, count
            count += 1
        bins[piece] = chosen
        left = room - sizes[piece]
        if left > 0:
            following[chosen] = head[left]
            head[left] = chosen
            _set(tree, width + left)
    return bins, count


@compiled
def _least_room(tree: np.ndarray, width: int, size: int) -> int:
    """Return the least room of at least ``size`` that a bin has, 0 if none has."""
    node = width + size
    if tree[node]:
        return size
    while node > 1 and (node & 1 or not tree[node + 1]):
        node //= 2  # up to the first node whose right neighbour has a bin
    if node <= 1:
        return 0
    node += 1
    while node < width:
        node *= 2
        if not tree[node]:
            node += 1
    return node - width


@compiled
def _set(tree: np.ndarray, leaf: int) -> None:
    node = leaf
    while node and not tree[node]:
        tree[node] = 1
        node //= 2


@compiled
def _clear(tree: np.ndarray, leaf: int) -> None:
    tree[leaf] = 0
    node = leaf // 2
    while node and not (tree[2 * node] or tree[2 * node + 1]):
        tree[node] = 0
        node //= 2
