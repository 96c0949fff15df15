"""Unsuitable words and phrases, counted in one pass over a text.

Words of scripts with spaces are compared whole, upper and lower case being the same, and a phrase whatever stands
between its words. Entries with a character of a script without spaces are looked for at every character.
"""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep.compiled import compiled
from data_prep.quality.characters import DIGIT, LETTER, MARK, UNSPACED, character_table, code_points
from data_prep.quality.list_file import entry_lines
from data_prep.quality.measured import MOST_CHARACTERS
from data_prep.quality.verdict import Verdict, above
from data_prep.quality.words import Codes, Hashes, Kinds
from gptdist.config.prep_quality import WordListSection
from gptdist.errors import DataError


class WordList(NamedTuple):
    """Hashes of the entries, sorted, with the lengths that occur."""

    phrases: Hashes
    phrase_words: NDArray[np.int64]
    substrings: Hashes
    substring_characters: NDArray[np.int64]


@compiled
def _mixed(state: np.uint64, code: np.uint64) -> np.uint64:
    state = (state ^ code) * np.uint64(0x9E3779B97F4A7C15)
    return state ^ (state >> np.uint64(29))


@compiled
def _is_in(hashes: Hashes, wanted: np.uint64) -> bool:
    low, high = 0, hashes.size
    while low < high:
        middle = (low + high) // 2
        if hashes[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low < hashes.size and hashes[low] == wanted


@compiled
def find_hashes(codes: Codes, table: Kinds) -> tuple[Hashes, int]:
    """Return the hash of every word between marks and spaces, and the number of characters that are words."""
    hashes = np.empty(codes.size // 2 + 1, np.uint64)
    count, characters, i = 0, 0, 0
    while i < codes.size:
        kind = table[codes[i]]
        if kind & UNSPACED:
            characters += 1
        if kind & UNSPACED or not kind & (LETTER | DIGIT | MARK):
            i += 1
            continue
        state = np.uint64(0xCBF29CE484222325)
        while i < codes.size:
            kind = table[codes[i]]
            if kind & UNSPACED or not kind & (LETTER | DIGIT | MARK):
                break
            state = _mixed(state, np.uint64(codes[i]))
            i += 1
        hashes[count] = state
        count += 1
    return hashes[:count], characters


@compiled
def _phrase_hash(words: Hashes, first: int, length: int) -> np.uint64:
    state = np.uint64(length)
    for i in range(first, first + length):
        state = _mixed(state, words[i])
    return state


@compiled
def _count_phrases(words: Hashes, phrases: Hashes, lengths: NDArray[np.int64]) -> tuple[int, int]:
    """Return occurrences of phrases and the words in them; the longest at each place, and none that overlap.

    The same for substrings, whose words are code points.
    """
    matches = matched = i = 0
    while i < words.size:
        step = 1
        for length in lengths:
            if i + length <= words.size and _is_in(phrases, _phrase_hash(words, i, length)):
                matches += 1
                matched += length
                step = length
                break
        i += step
    return matches, matched


def count_matches(text: str, words: WordList) -> tuple[int, float]:
    """Return how often entries occur, and the share of the text's words that belong to them."""
    codes = code_points(text[:MOST_CHARACTERS].lower())
    hashes, characters = find_hashes(codes, character_table())
    matches, matched = _count_phrases(hashes, words.phrases, words.phrase_words)
    if characters and words.substrings.size:
        more, more_matched = _count_phrases(codes.astype(np.uint64), words.substrings, words.substring_characters)
        matches, matched = matches + more, matched + more_matched
    return matches, matched / max(1, hashes.size + characters)


def word_list(text: str, words: WordList, section: WordListSection) -> Verdict | None:
    """Return the rule of the section that the text falls to."""
    matches, share = count_matches(text, words)
    return above("max_matches", matches, section.max_matches) or above(
        "max_word_fraction", share, section.max_word_fraction
    )


@lru_cache(maxsize=2)
def load_word_list(paths: tuple[Path, ...]) -> WordList:
    """Read lists of words.

    Raises:
        DataError: a list cannot be read or has no entry.
    """
    phrases: dict[int, int] = {}
    substrings: dict[int, int] = {}
    table = character_table()
    for path in paths:
        entries = 0
        for line in entry_lines(path, "quality.word_list.files"):
            codes = code_points(line.decode().lower())
            hashes, characters = find_hashes(codes, table)
            entries += hashes.size + characters
            if characters:
                substrings[int(_phrase_hash(codes.astype(np.uint64), 0, codes.size))] = codes.size
            elif hashes.size:
                phrases[int(_phrase_hash(hashes, 0, hashes.size))] = hashes.size
        if not entries:
            raise DataError(f"{path}: has no word; fill it, or remove it from quality.word_list.files")
    return WordList(*_sorted(phrases), *_sorted(substrings))


def _sorted(lengths: dict[int, int]) -> tuple[Hashes, NDArray[np.int64]]:
    """Return the keys sorted, and the different values from the largest on."""
    return np.array(sorted(lengths), np.uint64), np.array(sorted(set(lengths.values()), reverse=True), np.int64)
