"""Text as a sequence of 64-bit units that case, accents and punctuation do not change.

A unit is a word, or in scripts that have no blanks between words a character.
"""

import unicodedata
from functools import lru_cache

import numpy as np

from data_prep.decontaminate.kernels import text_units

_SEPARATES, _IN_WORD, _OWN_UNIT, _IGNORED = range(4)
_TABLE_SIZE = 0x20000
"""Characters above are Han, or no letters."""

_NO_BLANKS = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),
    (0x3021, 0x312F),  # Hiragana, Katakana, Bopomofo
    (0x31A0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xA000, 0xA4CF),  # Yi
    (0xA980, 0xA9DF),  # Javanese
    (0xAA60, 0xAADF),  # Myanmar, Tai Viet
    (0xF900, 0xFAFF),
    (0x16FE0, 0x1B2FF),  # Tangut, Kana supplements
)
_APOSTROPHES = "'\u2019\u02bc\uff07"
"""Left out without a cut: ``don't`` is one word, as ``dont`` is."""


@lru_cache(maxsize=1)
def letter_table() -> np.ndarray:
    """Return for every character up to 0x1FFFF its class in the low 2 bits and its folded form above them.

    Folding takes case and accents away (``É`` is ``e``, composed or not) and compatibility forms (``Ａ`` is ``a``). It
    keeps what one letter cannot stand for: ``ß`` and ligatures stay themselves, so do vowel signs of Indic scripts.
    """
    table = np.empty(_TABLE_SIZE, dtype=np.uint32)
    for code in range(_TABLE_SIZE):
        folded = _folded(chr(code))
        table[code] = ord(folded) << 2 | _class_of(chr(code), folded)
    table.flags.writeable = False  # all tables of a process share it
    return table


def _folded(letter: str) -> str:
    if letter.isascii():
        return letter.lower()
    parts = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", letter).casefold())
    if parts and all(unicodedata.combining(part) for part in parts[1:]):
        return parts[0]
    return letter


def _class_of(letter: str, folded: str) -> int:
    category = unicodedata.category(letter)
    if letter in _APOSTROPHES or category == "Cf" or unicodedata.combining(letter) or 0xFE00 <= ord(letter) <= 0xFE0F:
        return _IGNORED
    if not (folded.isalnum() or category in ("Mn", "Mc")):
        return _SEPARATES
    return _OWN_UNIT if any(low <= ord(folded) <= high for low, high in _NO_BLANKS) else _IN_WORD


def units_of(utf8: bytes, table: np.ndarray) -> np.ndarray:
    """Return the units of a text from its bytes."""
    if not utf8:
        return np.empty(0, dtype=np.uint64)
    units: np.ndarray = text_units(np.frombuffer(utf8, dtype=np.uint8), table)
    return units
