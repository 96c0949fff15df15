"""Hashes of n-grams, and a table of them that a document is held against in microseconds.

An n-gram is as many units from a place on as weigh enough: a word weighs ``ngram_characters``, a character of a
script without blanks ``ngram_words``, together they have to reach the product. So both counts hold for pure text,
mixed text is treated alike, and an n-gram depends on nothing before it.
"""

from dataclasses import dataclass

import numpy as np

from data_prep.decontaminate.kernels import look_up, set_bits, window_hashes

_BITS_PER_KEY = 16
_LEAST_LOG_BITS = 13


@dataclass(frozen=True)
class Measure:
    """How long an n-gram is."""

    words: int
    characters: int
    min_words: int
    """Words of the shortest text that counts as a whole."""

    def windows(self, units: np.ndarray) -> np.ndarray:
        """Return the hash of the n-gram at each unit, as far as there are whole ones."""
        return window_hashes(units, self.characters, self.words, self.words * self.characters)

    def beginnings(self, units: np.ndarray) -> np.ndarray:
        """Return the hash of as many units from each unit on as the shortest text that counts has."""
        return window_hashes(units, self.characters, self.words, self.min_words * self.characters)


class HashTable:
    """Sorted hashes with a number each: 12 bytes a hash, and 2 to 4 for a bitmap that tells most others apart.

    Args:
        hashes: may repeat; the first number of each counts.
        numbers: below 2**32, one a hash.
    """

    def __init__(self, hashes: np.ndarray, numbers: np.ndarray) -> None:
        self.keys, first = np.unique(hashes, return_index=True)
        self.numbers = numbers[first].astype(np.uint32)
        log_bits = max(_LEAST_LOG_BITS, int(len(self.keys) * _BITS_PER_KEY - 1).bit_length())
        self._shift = 64 - log_bits
        self._bitmap = np.zeros(1 << (log_bits - 3), dtype=np.uint8)
        set_bits(self.keys, self._bitmap, self._shift)

    def __len__(self) -> int:
        return len(self.keys)

    def places(self, hashes: np.ndarray) -> np.ndarray:
        """Return an array of rows: index among ``hashes``, index among ``keys``, for each hash that is a key."""
        found: np.ndarray = look_up(hashes, self.keys, self._bitmap, self._shift)
        return found
