"""What the rules count about words: how many, how long, with letters, and how many sentences they make."""

from typing import NamedTuple

import numpy as np

from data_prep.compiled import compiled
from data_prep.quality.characters import (
    LATIN,
    LETTER,
    PUNCTUATION,
    SOUTH_EAST_ASIAN,
    SPACE,
    SYMBOL,
    TERMINAL,
    UNPUNCTUATED,
    UNSPACED,
    WIDE,
)
from data_prep.quality.words import Codes, Hashes, Kinds, Places

_HASH, _DOT, _ELLIPSIS = 0x23, 0x2E, 0x2026


class WordCounts(NamedTuple):
    """Counts of a document's words."""

    words: int
    no_symbols: int
    """Words that are not punctuation alone."""

    columns: int
    """Length of these together, a wide character as two; those of scripts without spaces are left out."""

    unspaced: int
    """Words that are a character of a script without spaces."""

    south_east_asian: int
    """Those of them that are letters of an alphabet."""

    alphabetic: int
    """Words with a letter."""

    latin: int
    """Words with a Latin letter."""


@compiled
def count_words(kinds: Kinds, starts: Places, ends: Places) -> tuple[int, int, int, int, int, int, int]:
    """Return the fields of ``WordCounts``."""
    no_symbols = columns = unspaced = south_east_asian = alphabetic = latin = 0
    for word in range(starts.size):
        any_of, all_of = kinds[starts[word]], kinds[starts[word]]
        for i in range(starts[word] + 1, ends[word]):
            any_of |= kinds[i]
            all_of &= kinds[i]
        alphabetic += any_of & LETTER != 0
        latin += any_of & LATIN != 0
        if any_of & UNSPACED:
            no_symbols += 1
            unspaced += 1
            south_east_asian += any_of & SOUTH_EAST_ASIAN != 0
        elif not all_of & SYMBOL:
            no_symbols += 1
            columns += ends[word] - starts[word]
            if any_of & WIDE:
                for i in range(starts[word], ends[word]):
                    columns += kinds[i] & WIDE != 0
    return starts.size, no_symbols, columns, unspaced, south_east_asian, alphabetic, latin


@compiled
def count_symbols(codes: Codes) -> tuple[int, int]:
    """Return the number of hash signs, and of ellipses: three dots, or the character that looks like them."""
    hashes = ellipses = dots = 0
    for code in codes:
        hashes += code == _HASH
        dots = dots + 1 if code == _DOT else 0
        if code == _ELLIPSIS or dots == 3:
            ellipses += 1
            dots = 0
    return hashes, ellipses


@compiled
def count_different(hashes: Hashes, wanted: Hashes) -> int:
    """Return how many of ``wanted``, at most 64, are among ``hashes``."""
    sieve, found = np.uint64(0), np.uint64(0)
    for key in wanted:
        sieve |= np.uint64(1) << (key & np.uint64(63))
    for key in hashes:
        if (sieve >> (key & np.uint64(63))) & np.uint64(1):
            for j in range(wanted.size):
                if key == wanted[j]:
                    found |= np.uint64(1) << np.uint64(j)
    different = 0
    for j in range(wanted.size):
        different += ((found >> np.uint64(j)) & np.uint64(1)) != 0
    return different


@compiled
def count_sentences(codes: Codes, kinds: Kinds, starts: Places, ends: Places) -> int:
    """Return the number of sentences; every line begins a new one, and so does what follows a terminal mark.

    In scripts without a full stop (Thai, Lao) white space ends a sentence.

    Source: the rule of spaCy's ``sentencizer``.
    """
    sentences, ended, begins, last = 0, False, True, 0
    for word in range(starts.size):
        begin, end = starts[word], ends[word]
        for i in range(last, begin):
            begins = begins or codes[i] == 0x0A
        last = end
        is_mark = end - begin == 1 and kinds[begin] & TERMINAL != 0
        punctuation = np.uint32(PUNCTUATION)
        for i in range(begin, end):
            punctuation &= kinds[i]
        if begins or (ended and not is_mark and not punctuation):
            sentences += 1
            ended = begins = False
        if is_mark or (kinds[begin] & UNPUNCTUATED and end < kinds.size and kinds[end] & SPACE):
            ended = True
    return sentences
