"""MinHash signatures of texts, by one-permutation hashing over shingles of letters.

The text is normalised: ASCII letters in lower case; every run of ASCII white space, punctuation and control characters
and of the punctuation of Latin-1, U+2000 to U+203F and U+3000 to U+303F is one space; the rest stays. A character is
one letter of a shingle, but one that says more is several: Chinese and Japanese ones four, Korean syllables three. So
12 letters are 12 Latin, Cyrillic, Arabic or Thai ones, or 3 Chinese ones; no rule asks for words, and every script is
treated alike. Every shingle is hashed once: the upper half of the hash picks one of the ``bands * rows`` bins, the
lower half competes for the bin's minimum. A bin that no shingle fell into borrows from another one that a hash of its
number picks, the same for every document, so that two short texts agree in it as often as in any other.

What it gives: signatures agree in a value with the probability J, the Jaccard similarity of the sets of shingles. Where
a tenth of the words of a page is replaced, removed or followed by another one, J is 0.65 (median over 150 pages of
documentation; 0.59 at the 5th percentile), for Chinese with a tenth of the characters edited 0.57; for two unrelated
pages it is 0.0045 on average, 0.034 at the 99th percentile, and 0.14 if a quarter of either is the same menu. With 32
bands of 4 rows the probability that two texts meet in a band is

===== ===== ===== ===== ===== ===== ===== =====
J     0.05  0.15  0.30  0.45  0.55  0.60  0.65
meet  0.000 0.016 0.229 0.738 0.954 0.988 0.998
===== ===== ===== ===== ===== ===== ===== =====

and the similarity, estimated from 128 values, has the standard deviation 0.044 at J = 0.5.

**Source**: Broder 1997, "On the resemblance and containment of documents"; Li, Owen and Zhang 2012, "One permutation
hashing"; Shrivastava 2017, "Optimal densification for fast and accurate minwise hashing".
"""

from dataclasses import dataclass

import numpy as np

from data_prep.compiled import compiled
from data_prep.dedup.records import Array

VERSION = 1
"""Raise it when a text begins to get another signature."""

_EMPTY = np.uint32(0xFFFFFFFF)
_SPACE = np.uint64(32)
_MIX_LOW = np.uint64(0x9E3779B97F4A7C15)
_MIX_HIGH = np.uint64(0xD6E8FEB86659FD93)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_HALF = np.uint64(32)
_LOW_HALF = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class Signatures:
    """Signatures of n texts."""

    keys: Array
    """(bands + 1, n), uint64: texts with the same key in a row meet there; the last row is the whole signature's."""

    sketches: Array
    """(n, bands * rows), uint8: the lowest byte of every value, to estimate the similarity of two texts."""

    letters: Array
    """Letters of each normalised text."""


def signatures_of(offsets: Array, data: Array, *, bands: int, rows: int, shingle_letters: int) -> Signatures:
    """Return the signatures of texts, which lie in ``data`` from each offset to the next."""
    count = len(offsets) - 1
    keys = np.empty((bands + 1, count), dtype=np.uint64)
    sketches = np.empty((count, bands * rows), dtype=np.uint8)
    letters = np.empty(count, dtype=np.int64)
    _sign(offsets, data, _normal_bytes(), shingle_letters, keys, sketches, letters)
    return Signatures(keys, sketches, letters)


def least_equal(similarity: float, values: int) -> int:
    """Return how many of ``values`` bytes have to be equal for an estimate of at least ``similarity``.

    Different values have the same lowest byte with probability 1 / 256.
    """
    return int(np.ceil(values * (similarity + (1.0 - similarity) / 256) - 1e-9)) if similarity > 0.0 else 0


def similarity_of(equal: Array, values: int) -> Array:
    """Return the Jaccard similarity, float32, that ``equal`` of ``values`` bytes of two sketches tell of."""
    return np.clip((equal / values - 1 / 256) / (1 - 1 / 256), 0.0, 1.0).astype(np.float32)


def _normal_bytes() -> Array:
    """Return what each byte becomes in the normalised text."""
    table = np.arange(256, dtype=np.uint8)
    for byte in range(128):
        character = chr(byte)
        table[byte] = ord(character.lower()) if character.isalnum() else _SPACE
    return table


@compiled
def _sign(
    offsets: Array, data: Array, table: Array, shingle_letters: int, keys: Array, sketches: Array, letters: Array
) -> None:
    values = sketches.shape[1]
    bands = len(keys) - 1
    rows = values // bands
    smallest = np.empty(values, dtype=np.uint32)
    for document in range(len(offsets) - 1):
        smallest[:] = _EMPTY
        letters[document] = _smallest_hashes(
            data, offsets[document], offsets[document + 1], table, shingle_letters, smallest
        )
        if letters[document] >= shingle_letters:
            _fill_empty(smallest)
        whole = np.uint64(0)
        for band in range(bands):
            key = np.uint64(band)
            for value in smallest[band * rows : (band + 1) * rows]:
                key = _mixed(key * _MIX_HIGH + np.uint64(value))
            keys[band, document] = key
            whole = _mixed(whole * _MIX_HIGH + key)
        keys[bands, document] = whole
        for value in range(values):
            sketches[document, value] = smallest[value] & 0xFF


@compiled
def _smallest_hashes(data: Array, begin: int, end: int, table: Array, shingle_letters: int, smallest: Array) -> int:
    """Put the smallest hash of each bin into ``smallest``; return the letters of the normalised text."""
    every = ~np.uint64(0)
    low_mask = every >> np.uint64(64 - 8 * min(shingle_letters, 8))
    high_mask = every >> np.uint64(64 - 8 * (shingle_letters - 8)) if shingle_letters > 8 else np.uint64(0)
    num_bins = np.uint64(len(smallest))
    low, high = np.uint64(0), np.uint64(0)  # the last 16 letters, a byte each
    letters, place, after_space = 0, begin, True
    while place < end:
        if data[place] < 0x80:
            width, symbol = 1, np.uint64(table[data[place]])
            is_space = symbol == _SPACE
            place += 1
        else:
            place, width, symbol, is_space = _wide(data, place)
        if is_space & after_space:
            continue
        after_space = is_space
        bits = np.uint64(8 * width)
        high = (high << bits) | (low >> (np.uint64(64) - bits))
        low = (low << bits) | symbol
        letters += width
        if letters >= shingle_letters:
            digest = _mixed((low & low_mask) * _MIX_LOW + (high & high_mask) * _MIX_HIGH)
            slot = ((digest >> _HALF) * num_bins) >> _HALF
            value = np.uint32(digest & _LOW_HALF)
            if value < smallest[slot]:  # noqa: PLR1730  # a store each time holds up the loads behind it
                smallest[slot] = value
    return letters


@compiled
def _wide(data: Array, place: int) -> tuple[int, int, np.uint64, bool]:
    """Return where the next character is, how many letters this one counts for, its value, and whether it is space."""
    lead, second = np.uint64(data[place]), np.uint64(data[place + 1] & 0x3F)
    if lead == 0xC2:  # the punctuation of Latin-1
        return place + 2, 1, _SPACE, True
    if lead < 0xE0:
        return place + 2, 1, ((lead & np.uint64(3)) << np.uint64(6)) | second, False
    third = np.uint64(data[place + 2] & 0x3F)
    if second == 0 and 0xE2 <= lead <= 0xE3:  # U+2000 to U+203F, U+3000 to U+303F
        return place + 3, 1, _SPACE, True
    if lead < 0xE3:
        return place + 3, 1, ((second & np.uint64(3)) << np.uint64(6)) | third, False
    whole = (lead << np.uint64(12)) | (second << np.uint64(6)) | third
    if lead < 0xF0:
        return place + 3, 4 if lead < 0xEA else 3, whole, False
    return place + 4, 4, (whole << np.uint64(6)) | np.uint64(data[place + 3] & 0x3F), False


@compiled
def _fill_empty(smallest: Array) -> None:
    """Give every empty bin the value of one that is not, by a walk that depends on the bin's number alone."""
    bins = np.uint64(len(smallest))
    filled = smallest != _EMPTY
    for slot in range(len(smallest)):
        step = np.uint64(0)
        lender = np.uint64(slot)
        while not filled[lender]:
            step += np.uint64(1)
            lender = ((_mixed(np.uint64(slot) * _MIX_LOW + step * _MIX_HIGH) >> _HALF) * bins) >> _HALF
        smallest[slot] = smallest[lender]


@compiled
def _mixed(word: np.uint64) -> np.uint64:
    word ^= word >> np.uint64(32)
    word *= _MIX
    word ^= word >> np.uint64(29)
    word *= _MIX_HIGH
    return word ^ (word >> np.uint64(32))
