"""Repeated n-grams of words, by hashes.

An n-gram can only be repeated where the shorter ones inside of it are; each size looks at what the one before left,
which is little in ordinary text.
"""

import numpy as np
from numpy.typing import NDArray

from data_prep.compiled import compiled
from data_prep.quality.words import Hashes, Places

_BASE = 0x9E3779B97F4A7C15
_MIX = 0xD6E8FEB86659FD93


@compiled
def _group(prefixes: Hashes, size: int, live: Places, groups: Places, counts: Places) -> None:
    """Give every live n-gram the index of its first occurrence as group, and count each group."""
    power = np.uint64(1)
    for _ in range(size):
        power *= np.uint64(_BASE)
    slots = 16
    while slots < 2 * live.size:
        slots *= 2
    table = np.zeros(slots, np.uint64)  # upper half: of the hash; lower half: index, from 1
    mask, upper = np.uint64(slots - 1), np.uint64(0xFFFFFFFF00000000)
    for k in range(live.size):
        key = (prefixes[live[k] + size] - prefixes[live[k]] * power) * np.uint64(_MIX)
        key ^= key >> np.uint64(32)
        slot = key & mask
        key = (key * np.uint64(_BASE)) & upper
        while table[slot] and table[slot] & upper != key:
            slot = (slot + np.uint64(1)) & mask
        if not table[slot]:
            table[slot], counts[k] = key | np.uint64(k + 1), 0
        groups[k] = np.int64(table[slot] & ~upper) - 1
        counts[groups[k]] += 1


@compiled
def _narrow(live: Places, step: int, last: int) -> Places:
    """Keep those n-grams whose shorter ones all live: ``step`` is how many places later the last of them begins."""
    count = 0
    for k in range(live.size - step):
        if live[k + step] == live[k] + step and live[k] <= last:
            live[count] = live[k]
            count += 1
    return live[:count]


@compiled
def _keep_repeated(live: Places, groups: Places, counts: Places) -> Places:
    count = 0
    for k in range(live.size):
        if counts[groups[k]] > 1:
            live[count] = live[k]
            count += 1
    return live[:count]


@compiled
def _most_frequent(live: Places, groups: Places, counts: Places) -> tuple[int, int]:
    """Return place and count of the most frequent n-gram, the earliest of several."""
    best, most = 0, 1
    for k in range(live.size):
        if groups[k] == k and counts[k] > most:
            best, most = live[k], counts[k]
    return best, most


@compiled
def _repeated_characters(lengths: Places, size: int, live: Places, groups: Places) -> int:
    """Walk over the words: characters of n-grams that were met before; the walk goes on behind each."""
    met = np.zeros(live.size, np.uint8)
    characters = until = 0
    for k in range(live.size):
        if live[k] < until:
            continue
        if met[groups[k]]:
            until = live[k] + size
            characters += lengths[until] - lengths[live[k]]
        met[groups[k]] = 1
    return characters


@compiled
def _most_repeated(lengths: Places, size: int, live: Places, groups: Places) -> int:
    """Return the characters of all words in a repeated n-gram: longer n-grams cannot repeat more."""
    characters = until = 0
    for k in range(live.size):
        if groups[k] != k:
            characters += lengths[live[k] + size] - lengths[max(live[k], until)]
            until = live[k] + size
    return characters


@compiled
def measure_grams(
    hashes: Hashes, starts: Places, ends: Places, stretch: int, enough: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Measure the n-grams of 2, 3 and 4, and of 5 … 10 words.

    Args:
        hashes: of the words.
        starts: where they begin.
        ends: where they end.
        stretch: entries that make a word; 1, but for scripts without spaces.
        enough: characters in repeated n-grams of 5 words that no rule minds; with fewer, nothing longer is measured.

    Returns:
        Characters in all occurrences of the most frequent n-gram, with the spaces between its words, of 2, 3 and 4
        words; characters in repetitions of n-grams of 5 … 10 words.
    """
    top, repeated = np.zeros(3, np.int64), np.zeros(6, np.int64)
    words = hashes.size
    prefixes, lengths = np.zeros(words + 1, np.uint64), np.zeros(words + 1, np.int32)
    for i in range(words):
        prefixes[i + 1] = prefixes[i] * np.uint64(_BASE) + hashes[i]
        lengths[i + 1] = lengths[i] + ends[i] - starts[i]
    groups, counts = np.empty(words, np.int32), np.empty(words, np.int32)
    live = np.arange(words).astype(np.int32)
    size = 1
    for n in range(2, 11):
        live = _narrow(live, n * stretch - size, words - n * stretch)
        size = n * stretch
        if words < size:
            break
        _group(prefixes, size, live, groups, counts)
        if n < 5:
            best, most = _most_frequent(live, groups, counts)
            spaces = size - 1 if stretch == 1 else 0
            top[n - 2] = most * (lengths[best + size] - lengths[best] + spaces)
        elif n == 5 and _most_repeated(lengths, size, live, groups) <= enough:
            break
        else:
            repeated[n - 5] = _repeated_characters(lengths, size, live, groups)
        live = _keep_repeated(live, groups, counts)
    return top, repeated
