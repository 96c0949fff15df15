"""Cutting text into words as spaCy's English tokenizer does, and what the rules ask about them.

White space separates chunks. Of a chunk, punctuation is taken off both ends mark by mark, contractions are cut, and
what is left is cut at marks between letters, unless it is an address. A character of a script without spaces between
words is a word, with the marks that combine with it.

Source: the rules of spaCy 3 (``spacy/lang/punctuation.py``, ``tokenizer.pyx``), which datatrove counts English with;
its exceptions are here as far as they matter to a count.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data_prep.compiled import compiled
from data_prep.quality.characters import (
    AFFIX,
    CURRENCY,
    DIGIT,
    LETTER,
    LOWER,
    MARK,
    PICTOGRAM,
    QUOTE,
    SPACE,
    UNSPACED,
    UPPER,
    code_points,
)

Codes = NDArray[np.uint32]
Kinds = NDArray[np.uint32]
Places = NDArray[np.int32]
Hashes = NDArray[np.uint64]

_DOT, _PLUS, _HYPHEN, _PERCENT, _QUOTE, _CURLY_QUOTE = 0x2E, 0x2B, 0x2D, 0x25, 0x27, 0x2019
_EN_DASH, _EM_DASH, _ELLIPSIS = 0x2013, 0x2014, 0x2026
_LONGEST_ABBREVIATION = 7

_ABBREVIATIONS = (
    "a.m. p.m. Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G. Gen. Gov. i.e. I.e. I.E. Inc. Jr. Ltd. Md. Messrs. "
    "Mo. Mont. Mr. Mrs. Ms. Ph.D. Prof. Rep. Rev. Sen. St. vs. v.s. Jan. Feb. Mar. Apr. Jun. Jul. Aug. Sep. Sept. "
    "Oct. Nov. Dec. Ala. Ariz. Ark. Calif. Colo. Conn. Del. Fla. Ga. Ill. Ind. Kan. Kans. Ky. La. Mass. Mich. Minn. "
    "Miss. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Okla. Ore. Pa. S.C. Tenn. Va. Wash. Wis."
)
_UNITS = "km m dm cm mm ha nm yd in ft kg g mg t lb oz kmh mph hPa Pa mbar mb MB kb KB gb GB tb TB T G M K"


@compiled
def word_hash(codes: Codes, start: int, end: int) -> np.uint64:
    """Return a 64-bit hash of a span."""
    state = np.uint64(0xCBF29CE484222325)
    for i in range(start, end):
        state = (state ^ np.uint64(codes[i])) * np.uint64(0x9E3779B97F4A7C15)
    state ^= state >> np.uint64(32)
    return state * np.uint64(0xD6E8FEB86659FD93)


@compiled
def classify(codes: Codes, table: Kinds) -> Kinds:
    """Return the bits of each character."""
    kinds = np.empty(codes.size, np.uint32)
    for i in range(codes.size):
        kinds[i] = table[codes[i]]
    return kinds


@compiled
def _dots_after(codes: Codes, i: int, end: int) -> int:
    count = 0
    while i + count < end and codes[i + count] == _DOT:
        count += 1
    return count if count > 1 else 0


@compiled
def _is_prefix(code: np.uint32, kind: np.uint32, next_kind: np.uint32) -> bool:
    """Whether a mark at the beginning of a chunk is a word of its own."""
    if code == _PLUS:
        return next_kind & DIGIT == 0
    return kind & (AFFIX | CURRENCY) != 0 or code in (_PERCENT, 0x3D)


@compiled
def _is_suffix(code: np.uint32, kind: np.uint32, before: np.uint32) -> bool:
    """Whether a mark at the end of a chunk is a word of its own."""
    after_digit = before & DIGIT != 0 and (kind & CURRENCY != 0 or code in (_PLUS, _PERCENT))
    return kind & AFFIX != 0 or after_digit


@compiled
def _dot_suffix(codes: Codes, kinds: Kinds, low: int, high: int) -> int:
    """Length of the dots at the end that are a word: two or more, or one after a lower-case letter, digit or mark."""
    count = 0
    while high - count > low and codes[high - 1 - count] == _DOT:
        count += 1
    if count > 1:
        return count
    if high - low < 2:
        return 0
    before, code = kinds[high - 2], codes[high - 2]
    if before & (LOWER | DIGIT | AFFIX | QUOTE) or code in (_PERCENT, 0xB2, _HYPHEN, _PLUS):
        return 1
    return 1 if high - low > 2 and before & UPPER and kinds[high - 3] & UPPER else 0


@compiled
def _letter_suffix(codes: Codes, kinds: Kinds, low: int, high: int, units: Hashes) -> int:
    """Length of 's, or of a unit of measurement after a digit, or 0."""
    if codes[high - 1] | 0x20 == 0x73 and (codes[high - 2] == _QUOTE or codes[high - 2] == _CURLY_QUOTE):
        return 2
    length = 1
    while length < 4 and high - length > low and kinds[high - 1 - length] & LETTER:
        length += 1
    if high - length <= low or not kinds[high - 1 - length] & DIGIT:
        return 0
    return length if _is_in(units, word_hash(codes, high - length, high)) else 0


@compiled
def _is_in(hashes: Hashes, wanted: np.uint64) -> bool:
    place = np.searchsorted(hashes, wanted)
    return bool(place < hashes.size and hashes[place] == wanted)


@compiled
def _is_abbreviation(codes: Codes, low: int, high: int, abbreviations: Hashes) -> bool:
    if high - low == 2 and 0x61 <= codes[low] <= 0x7A:
        return True
    return _is_in(abbreviations, word_hash(codes, low, high))


@compiled
def _cuts(code: np.uint32, next_code: np.uint32, before: np.uint32, after: np.uint32) -> bool:
    """Whether a single mark cuts a chunk, by the bits of the characters beside it."""
    if code == _DOT:
        return before & (LOWER | QUOTE) != 0 and after & (UPPER | QUOTE) != 0
    if code == 0x2C:
        return before & LETTER != 0 and after & LETTER != 0
    is_sum = code in (_PLUS, _HYPHEN, 0x2A, 0x5E) and before & DIGIT != 0
    if is_sum and (after & DIGIT or next_code == _HYPHEN):
        return True
    joins = before & (LETTER | DIGIT) != 0 and after & LETTER != 0
    return joins and code in (_HYPHEN, _EN_DASH, _EM_DASH, 0x7E, 0x3A, 0x2F, 0x3C, 0x3D, 0x3E)


@compiled
def _long_infix(codes: Codes, kinds: Kinds, i: int, low: int, high: int) -> int:
    """Length of the dots, or of the two or three dashes between a letter and a letter, at ``i``; or 0."""
    code, length = codes[i], 1
    while i + length < high and codes[i + length] == code:
        length += 1
    if code == _DOT:
        return length
    fits = length <= 3 and i > low and kinds[i - 1] & (LETTER | DIGIT) and i + length < high
    return length if fits and kinds[i + length] & LETTER else 0


@compiled
def _infix(codes: Codes, kinds: Kinds, i: int, low: int, high: int) -> int:
    """Length of the mark at ``i`` that cuts a chunk, or 0."""
    code = codes[i]
    if code == _ELLIPSIS or kinds[i] & PICTOGRAM:
        return 1
    if i + 1 >= high:
        return 0
    if codes[i + 1] == code and code in (_DOT, _HYPHEN, _EM_DASH):
        return _long_infix(codes, kinds, i, low, high)
    return 1 if i > low and _cuts(code, codes[i + 1], kinds[i - 1], kinds[i + 1]) else 0


@compiled
def _after_scheme(codes: Codes, low: int, high: int) -> int:
    """Where the host of an address begins: behind the scheme and the user's name, if there are any."""
    begin = low
    for i in range(low, high - 2):
        if codes[i] == 0x3A and codes[i + 1] == 0x2F and codes[i + 2] == 0x2F:
            begin = i + 3
            break
    for i in range(begin, high):
        if codes[i] == 0x40:
            begin = i + 1
    return begin


@compiled
def _is_address(codes: Codes, kinds: Kinds, low: int, high: int) -> bool:
    """Whether a chunk is a URL or a domain, with or without a scheme; such are not cut at marks inside."""
    begin = _after_scheme(codes, low, high)
    end, last_dot = begin, -1
    while end < high and (kinds[end] & (LETTER | DIGIT) or codes[end] in (_DOT, _HYPHEN, 0x5F)):
        if codes[end] == _DOT:
            if end == begin or last_dot == end - 1 or codes[end - 1] == _HYPHEN:
                return False
            last_dot = end
        end += 1
    if last_dot < 0 or end - last_dot < 3:
        return False
    for i in range(last_dot + 1, end):
        if not kinds[i] & LOWER:
            return False
    return end == high or codes[end] in (0x2F, 0x3F, 0x23, 0x3A)


@compiled
def _contraction(codes: Codes, kinds: Kinds, low: int, high: int) -> int:
    """Length of n't, 'll, 're, 've, 'd or 'm at the end of a word, or 0."""
    if high - low < 3 or not kinds[high - 1] & LETTER:
        return 0
    for length in (2, 3):
        mark = high - length
        if mark > low and codes[mark] in (_QUOTE, _CURLY_QUOTE) and kinds[mark - 1] & LETTER:
            first, last = codes[mark + 1], codes[high - 1]
            if length == 2 and first == 0x74:  # n't
                return 3 if codes[mark - 1] == 0x6E and mark - 1 > low else 0
            if length == 2 and first in (0x64, 0x6D):
                return 2
            if length == 3 and ((first == 0x6C and last == 0x6C) or (first in (0x72, 0x76) and last == 0x65)):
                return 3
    return 0


@compiled
def _cut_core(
    codes: Codes, kinds: Kinds, span: tuple[int, int], whole: bool, starts: Places, ends: Places, count: int
) -> int:
    """Append the words of a chunk whose ends carry no marks any more; the one word where it is to stay ``whole``."""
    low, high = span
    begin, i = low, low
    while i < high and (whole or kinds[i] & (LETTER | DIGIT)):
        i += 1
    if i < high:
        i = high - _contraction(codes, kinds, low, high)
        if i < high:
            starts[count], ends[count] = low, i
            begin, count, i = i, count + 1, high
        elif not _is_address(codes, kinds, low, high):
            i = low
    while i < high:
        length = 0 if kinds[i] & (LETTER | DIGIT) else _infix(codes, kinds, i, low, high)
        if length and i > begin:
            starts[count], ends[count] = begin, i
            starts[count + 1], ends[count + 1] = i, i + length
            count += 2
            begin = i + length
        i += max(length, 1)
    if begin < high:
        starts[count], ends[count] = begin, high
        count += 1
    return count


@compiled
def _cut_chunk(
    codes: Codes,
    kinds: Kinds,
    span: tuple[int, int],
    lexicon: Hashes,
    starts: Places,
    ends: Places,
    count: int,
) -> int:
    """Append the words of a chunk without white space; suffixes wait at the far end of the arrays meanwhile."""
    low, high = span
    waiting = starts.size
    whole = False
    while low < high and not whole:
        first, next_kind = codes[low], kinds[low + 1] if low + 1 < high else np.uint32(0)
        length = _dots_after(codes, low, high) if first == _DOT else int(_is_prefix(first, kinds[low], next_kind))
        if length:
            starts[count], ends[count] = low, low + length
            low += length
            count += 1
            if low >= high:
                break
        last, before = codes[high - 1], kinds[high - 2] if high - low > 1 else np.uint32(0)
        if last == _DOT:
            whole = high - low <= _LONGEST_ABBREVIATION and _is_abbreviation(codes, low, high, lexicon)
            tail = 0 if whole else _dot_suffix(codes, kinds, low, high)
        elif kinds[high - 1] & LETTER:
            tail = _letter_suffix(codes, kinds, low, high, lexicon) if before else 0
        else:
            tail = int(_is_suffix(last, kinds[high - 1], before))
        if tail:
            waiting -= 1
            starts[waiting], ends[waiting] = high - tail, high
            high -= tail
        if not length and not tail:
            break
    count = _cut_core(codes, kinds, (low, high), whole, starts, ends, count)
    for i in range(waiting, starts.size):
        starts[count], ends[count] = starts[i], ends[i]
        count += 1
    return count


@compiled
def _cut_unspaced(
    codes: Codes,
    kinds: Kinds,
    span: tuple[int, int],
    lexicon: Hashes,
    starts: Places,
    ends: Places,
    count: int,
) -> int:
    """Append the words of a chunk that has characters which are words."""
    i, high = span
    while i < high:
        begin = i
        if kinds[i] & UNSPACED:
            i += 1
            while i < high and kinds[i] & MARK:
                i += 1
            starts[count], ends[count] = begin, i
            count += 1
            continue
        while i < high and not kinds[i] & UNSPACED:
            i += 1
        count = _cut_chunk(codes, kinds, (begin, i), lexicon, starts, ends, count)
    return count


@compiled
def _is_plain_tail(code: np.uint32, kind: np.uint32, before: np.uint32, length: int) -> bool:
    """Whether the only mark of a chunk, at its end, is a word of its own: what most chunks with a mark are."""
    is_full_stop = code == _DOT and before & LOWER != 0 and length > _LONGEST_ABBREVIATION
    return kind & AFFIX != 0 or is_full_stop


@compiled
def find_words(codes: Codes, kinds: Kinds, lexicon: Hashes) -> tuple[Places, Places]:
    """Return where the words of a text begin and end."""
    starts, ends = np.empty(codes.size + 1, np.int32), np.empty(codes.size + 1, np.int32)
    count, i = 0, 0
    while i < codes.size:
        if kinds[i] & SPACE:
            i += 1
            continue
        begin, any_of, marks = i, np.uint32(0), 0
        while i < codes.size and not kinds[i] & SPACE:
            any_of |= kinds[i]
            marks += kinds[i] & (LETTER | MARK) == 0
            i += 1
        last = i - 1
        if any_of & UNSPACED:
            count = _cut_unspaced(codes, kinds, (begin, i), lexicon, starts, ends, count)
        elif not marks:
            starts[count], ends[count] = begin, i
            count += 1
        elif marks == 1 and begin < last and _is_plain_tail(codes[last], kinds[last], kinds[last - 1], i - begin):
            starts[count], ends[count] = begin, last
            starts[count + 1], ends[count + 1] = last, i
            count += 2
        else:
            count = _cut_chunk(codes, kinds, (begin, i), lexicon, starts, ends, count)
    return starts[:count], ends[:count]


@compiled
def hash_words(codes: Codes, starts: Places, ends: Places) -> Hashes:
    """Return the hash of each word."""
    hashes = np.empty(starts.size, np.uint64)
    for word in range(starts.size):
        hashes[word] = word_hash(codes, starts[word], ends[word])
    return hashes


def hashes_of(words: tuple[str, ...]) -> Hashes:
    """Return the hashes of ``words``, sorted."""
    return np.array(sorted({int(word_hash(code_points(word), 0, len(word))) for word in words}), np.uint64)


@lru_cache(maxsize=1)
def english_lexicon() -> Hashes:
    """Return the hashes of abbreviations that keep their dot, and of units, which are cut off a number."""
    return hashes_of((*_ABBREVIATIONS.split(), *_UNITS.split()))
