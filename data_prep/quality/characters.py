"""What each Unicode character is to the rules: one table of bits, made once in a process.

The bits are compiled into cached machine code: add new ones, never renumber.
"""

import unicodedata
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SPACE = 1
"""As ``str.isspace``."""

BREAK = 1 << 1
"""Ends a line for ``str.splitlines``."""

LETTER = 1 << 2
"""As ``str.isalpha``."""

DIGIT = 1 << 3
"""0-9."""

SYMBOL = 1 << 4
"""A word of nothing but these is no word to Gopher's count."""

AFFIX = 1 << 5
"""A punctuation mark, quote or pictogram that is a word of its own at either end of a chunk."""

LOWER = 1 << 6
UPPER = 1 << 7
"""A letter without case is both."""

UNSPACED = 1 << 8
"""A letter of a script that does not put spaces between words."""

MARK = 1 << 9
"""Combines with the character before."""

TERMINAL = 1 << 10
"""Ends a sentence."""

WIDE = 1 << 11
"""Takes two columns: East Asian, with about twice a letter's content."""

PICTOGRAM = 1 << 12
QUOTE = 1 << 13
PUNCTUATION = 1 << 14
"""Of a category P."""

UNPUNCTUATED = 1 << 15
"""A letter of a script without a full stop: Thai, Lao."""

CURRENCY = 1 << 16
SOUTH_EAST_ASIAN = 1 << 17
"""An unspaced letter of an alphabet: some four make a word, where it is two for Han and kana."""

LATIN = 1 << 18
CLOSING = 1 << 19
"""A closing quote, after which a sentence has ended as well."""

CODE_POINTS = 0x110000
_ASSIGNED = 0x32400
"""Above are planes without letters or marks of text, and variation selectors."""

_UNSPACED_RANGES = (
    (0x0E01, 0x0E5B, UNPUNCTUATED | SOUTH_EAST_ASIAN),  # Thai
    (0x0E81, 0x0EDF, UNPUNCTUATED | SOUTH_EAST_ASIAN),  # Lao
    (0x1000, 0x109F, SOUTH_EAST_ASIAN),  # Myanmar
    (0x1780, 0x17FF, SOUTH_EAST_ASIAN),  # Khmer
    (0x2E80, 0x2FDF, 0),  # radicals
    (0x3005, 0x3007, 0),
    (0x3021, 0x3029, 0),
    (0x3031, 0x3035, 0),
    (0x3041, 0x30FF, 0),  # kana
    (0x31F0, 0x31FF, 0),
    (0x3400, 0x4DBF, 0),  # Han
    (0x4E00, 0x9FFF, 0),
    (0xA9E0, 0xA9FE, SOUTH_EAST_ASIAN),
    (0xAA60, 0xAA7F, SOUTH_EAST_ASIAN),
    (0xF900, 0xFAFF, 0),
    (0xFF66, 0xFF9F, 0),  # half-width katakana
    (0x1AFF0, 0x1B16F, 0),
    (0x20000, 0x323AF, 0),
)
_TERMINAL = ".!?։؝؞؟۔܀܁܂߹।॥၊။።፧፨᙮᜵᜶។៕៖៙៚᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿‼‽⁇⁈⁉⸮⸼꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫﹒﹖﹗！．？｡。"  # noqa: RUF001  (they look alike, and are meant)
"""Marks with Unicode's property Sentence_Terminal in the Basic Multilingual Plane, and the Khmer ones beside them."""

_AFFIX = ",:;!?()[]{}<>_#*&'\"`´"  # noqa: RUF001  (as above)
_QUOTE = "'\"`´"  # noqa: RUF001  (as above)
_CLOSING = "”’」』"  # noqa: RUF001  (as above)
_BULLETS = "•‣◦"
"""Category P or not, published implementations count them as words."""


@lru_cache(maxsize=1)
def character_table() -> NDArray[np.uint32]:
    """Return the bits of every code point."""
    characters = np.arange(CODE_POINTS, dtype=np.uint32).view("U1")
    table = np.zeros(CODE_POINTS, np.uint32)
    letters = np.strings.isalpha(characters)
    lower, upper = np.strings.islower(characters), np.strings.isupper(characters)
    table[np.strings.isspace(characters)] |= SPACE
    table[letters] |= LETTER
    table[letters & ~upper] |= LOWER
    table[letters & ~lower] |= UPPER
    table[[0x0A, 0x0B, 0x0C, 0x0D, 0x1C, 0x1D, 0x1E, 0x85, 0x2028, 0x2029]] |= BREAK
    table[0x30:0x3A] |= DIGIT
    table[:0x20] |= SYMBOL
    table[0x7F:0xA0] |= SYMBOL
    table[0x41:0x5B] |= LATIN
    table[0x61:0x7B] |= LATIN
    table[0xC0:0x250] |= LATIN
    table[0x1E00:0x1F00] |= LATIN
    _add_categories(table)
    _add_scripts(table, letters)
    for marks, bits in ((_TERMINAL, TERMINAL), (_AFFIX, AFFIX), (_QUOTE, QUOTE), (_CLOSING, CLOSING)):
        table[[ord(mark) for mark in marks]] |= bits
    table[[ord(mark) for mark in _BULLETS]] &= ~np.uint32(SYMBOL)
    return table


def _add_categories(table: NDArray[np.uint32]) -> None:
    categories = np.array([unicodedata.category(chr(code)) for code in range(_ASSIGNED)])
    major = categories.astype("U1")
    ascii_range = np.arange(_ASSIGNED) < 0x80
    table[:_ASSIGNED][major == "P"] |= PUNCTUATION | SYMBOL
    table[:_ASSIGNED][(major == "S") & ascii_range] |= SYMBOL
    table[:_ASSIGNED][(major == "P") & ~ascii_range] |= AFFIX
    table[:_ASSIGNED][(categories == "So") & ~ascii_range] |= AFFIX | PICTOGRAM
    table[:_ASSIGNED][(categories == "Pi") | (categories == "Pf")] |= QUOTE
    table[:_ASSIGNED][major == "M"] |= MARK
    table[:_ASSIGNED][categories == "Sc"] |= CURRENCY


def _add_scripts(table: NDArray[np.uint32], letters: NDArray[np.bool_]) -> None:
    for first, last, bits in _UNSPACED_RANGES:
        here = slice(first, last + 1)
        table[here][letters[here]] |= UNSPACED | bits
    for first, last in ((0x1100, 0x115F), (0x2E80, 0x303E), (0x3041, 0xA4CF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF)):
        table[first : last + 1] |= WIDE
    for first, last in ((0xFE30, 0xFE6F), (0xFF01, 0xFF60), (0xFFE0, 0xFFE6), (0x1F300, 0x1FAFF), (0x20000, 0x3FFFD)):
        table[first : last + 1] |= WIDE


def code_points(text: str) -> NDArray[np.uint32]:
    """Return the text's characters as numbers; lone surrogates are let through."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
