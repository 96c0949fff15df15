"""Lines or paragraphs of the texts of an Arrow column, and their 64-bit hashes.

A unit is its text without ASCII white space around it. Two of n different units share a hash with probability
n ** 2 / 2 ** 65: 0.03 for a thousand million of them, and what is lost then is one repetition that was none.

**Source** of the hash: XXH64, the xxHash specification.
"""

from dataclasses import dataclass

import numpy as np

from data_prep.compiled import compiled
from data_prep.dedup.records import Array

_DOCUMENT, _BEGIN, _CONTENT, _CONTENT_END, _CHARACTERS = range(5)
_NEWLINE = 10

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)


@dataclass(frozen=True)
class Units:
    """Units of a batch of documents, in order; positions are bytes from the document's first."""

    documents: Array
    """Index of the document in the batch."""

    begins: Array
    """First byte of the unit's line; the first unit of a document begins at 0."""

    content_begins: Array
    content_ends: Array
    characters: Array
    """Code points of the content."""

    keys: Array
    """Hash of the content."""


def units_of(offsets: Array, data: Array, *, paragraphs: bool) -> Units:
    """Find the units of texts, which lie in ``data`` from each offset to the next."""
    lines = int(np.count_nonzero(data[offsets[0] : offsets[-1]] == _NEWLINE)) + len(offsets) - 1
    table, keys = np.empty((5, lines), dtype=np.int64), np.empty(lines, dtype=np.uint64)
    count = _find_units(offsets, data, paragraphs, table, keys)
    documents, begins, content_begins, content_ends, characters = table[:, :count]
    return Units(documents, begins, content_begins, content_ends, characters, keys[:count])


@compiled
def _find_units(offsets: Array, data: Array, paragraphs: bool, table: Array, keys: Array) -> int:
    count = 0
    for document in range(len(offsets) - 1):
        first, at, stop = count, offsets[document], offsets[document + 1]
        after_blank = True
        while at < stop:
            end = at
            while end < stop and data[end] != _NEWLINE:
                end += 1
            begin, content_end = _stripped(data, at, end)
            if begin == content_end:
                after_blank = True
            elif after_blank or not paragraphs:
                table[_DOCUMENT, count] = document
                table[_BEGIN, count] = offsets[document] if count == first else at
                table[_CONTENT, count], table[_CONTENT_END, count] = begin, content_end
                count += 1
                after_blank = False
            else:
                table[_CONTENT_END, count - 1] = content_end
            at = end + 1
        for unit in range(first, count):
            begin, end = table[_CONTENT, unit], table[_CONTENT_END, unit]
            keys[unit] = xxh64(data, begin, end)
            table[_CHARACTERS, unit] = _num_characters(data, begin, end)
            for column in (_BEGIN, _CONTENT, _CONTENT_END):
                table[column, unit] -= offsets[document]
    return count


@compiled
def _num_characters(data: Array, begin: int, end: int) -> int:
    count = 0
    for place in range(begin, end):
        count += (data[place] & 0xC0) != 0x80  # a continuation byte begins none
    return count


@compiled
def _stripped(data: Array, begin: int, end: int) -> tuple[int, int]:
    while begin < end and (data[begin] == 32 or 9 <= data[begin] <= 13):
        begin += 1
    while end > begin and (data[end - 1] == 32 or 9 <= data[end - 1] <= 13):
        end -= 1
    return begin, end


@compiled
def xxh64(data: Array, begin: int, end: int) -> np.uint64:
    """Return the XXH64, seed 0, of the bytes ``begin`` … ``end``."""
    place = begin
    if end - begin >= 32:
        one, two, three, four = _P1 + _P2, _P2, np.uint64(0), np.uint64(0) - _P1
        while place + 32 <= end:
            one = _round(one, _read(data, place, 8))
            two = _round(two, _read(data, place + 8, 8))
            three = _round(three, _read(data, place + 16, 8))
            four = _round(four, _read(data, place + 24, 8))
            place += 32
        digest = _rotated(one, 1) + _rotated(two, 7) + _rotated(three, 12) + _rotated(four, 18)
        for lane in (one, two, three, four):
            digest = (digest ^ _round(np.uint64(0), lane)) * _P1 + _P4
    else:
        digest = _P5
    digest += np.uint64(end - begin)
    while place + 8 <= end:
        digest = _rotated(digest ^ _round(np.uint64(0), _read(data, place, 8)), 27) * _P1 + _P4
        place += 8
    if place + 4 <= end:
        digest = _rotated(digest ^ (_read(data, place, 4) * _P1), 23) * _P2 + _P3
        place += 4
    while place < end:
        digest = _rotated(digest ^ (np.uint64(data[place]) * _P5), 11) * _P1
        place += 1
    digest = (digest ^ (digest >> np.uint64(33))) * _P2
    digest = (digest ^ (digest >> np.uint64(29))) * _P3
    return digest ^ (digest >> np.uint64(32))


@compiled
def _round(lane: np.uint64, word: np.uint64) -> np.uint64:
    return _rotated(lane + word * _P2, 31) * _P1


@compiled
def _rotated(word: np.uint64, bits: int) -> np.uint64:
    return (word << np.uint64(bits)) | (word >> np.uint64(64 - bits))


@compiled
def _read(data: Array, place: int, size: int) -> np.uint64:
    word = np.uint64(0)
    for byte in range(size):
        word |= np.uint64(data[place + byte]) << np.uint64(8 * byte)
    return word
