"""C4's rules: lines that are no sentences go, then documents are judged by what is left.

Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
JMLR 21(140), section 2.2, and its code in TensorFlow Datasets, ``c4_utils.py``; order as in datatrove 0.10.
"""

import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data_prep.compiled import compiled
from data_prep.quality.characters import (
    BREAK,
    CLOSING,
    DIGIT,
    MARK,
    SPACE,
    TERMINAL,
    UNPUNCTUATED,
    UNSPACED,
    character_table,
    code_points,
)
from data_prep.quality.measured import MOST_CHARACTERS, Measured
from data_prep.quality.verdict import Verdict, below
from data_prep.quality.word_counts import count_sentences
from data_prep.quality.words import Codes, Kinds
from gptdist.config.prep_rule_sets import C4Section

_REASONS = ("long_word", "no_terminal_punctuation", "few_words", "javascript", "policy")
_LONG_WORD, _NO_PUNCTUATION, _FEW_WORDS, _JAVASCRIPT, _POLICY = range(5)
_LOREM_IPSUM, _CURLY_BRACKET = 1, 2
_POLICY_PHRASES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
_CITATIONS = ("[edit]", "[citation needed]")
_NO_LIMIT = sys.maxsize
_FIRST_LOOK = 2_000
"""Characters in which most texts have sentences enough."""

_NEWLINE, _OPEN, _CLOSE, _CURLY = 0x0A, 0x5B, 0x5D, 0x7B

Phrases = tuple[Codes, Codes, Codes]
"""Lorem ipsum, JavaScript and the policies' phrases in lower case, each followed by a 0; empty without the rule."""


@compiled
def _starts_with(codes: Codes, i: int, last: int, phrases: Codes, j: int) -> bool:
    """Whether the phrase at ``j`` stands at ``i``, upper and lower case of ASCII being the same."""
    while phrases[j] != 0:
        if i >= last:
            return False
        code = codes[i]
        if 0x41 <= code <= 0x5A:
            code += np.uint32(0x20)
        if code != phrases[j]:
            return False
        i += 1
        j += 1
    return True


@compiled
def _has_phrase(codes: Codes, first: int, last: int, phrases: Codes) -> bool:
    """Whether one of the phrases, each followed by a 0, is in a span."""
    j = 0
    while j < phrases.size:
        initial = phrases[j]
        for i in range(first, last):
            if codes[i] | 0x20 == initial and _starts_with(codes, i, last, phrases, j):
                return True
        while phrases[j] != 0:
            j += 1
        j += 1
    return False


@compiled
def _citation(codes: Codes, kinds: Kinds, i: int, last: int, citations: Codes) -> int:
    """Length of ``[1]``, ``[]``, ``[edit]`` or ``[citation needed]`` at ``i``, or 0."""
    end = i + 1
    while end < last and kinds[end] & DIGIT:
        end += 1
    if end < last and codes[end] == _CLOSE:
        return end + 1 - i
    j = 0
    while j < citations.size:
        length = 0
        while citations[j + length] != 0:
            length += 1
        same = i + length <= last
        for k in range(length):
            same = same and codes[i + k] == citations[j + k]
        if same:
            return length
        j += length + 1
    return 0


@compiled
def _copy_line(codes: Codes, kinds: Kinds, first: int, last: int, citations: Codes, kept: Codes, count: int) -> int:
    """Append a line without its citations."""
    i = first
    while i < last:
        if codes[i] == _OPEN and citations.size:
            length = _citation(codes, kinds, i, last, citations)
            i += length
            if length:
                continue
        kept[count] = codes[i]
        count += 1
        i += 1
    return count


@compiled
def _words_of_line(kinds: Kinds, first: int, last: int) -> tuple[int, int]:
    """Return the number of words between white space, and the longest; characters that are words count each."""
    words = longest = length = unspaced = 0
    for i in range(first, last + 1):
        if i == last or kinds[i] & SPACE:
            if length or unspaced:
                words += max(unspaced, 1)
            length = unspaced = 0
        elif kinds[i] & UNSPACED:
            unspaced += 1
            length = 0
        elif not (kinds[i] & MARK and unspaced and not length):
            length += 1
            longest = max(longest, length)
    return words, longest


@compiled
def _ends_a_sentence(kept: Codes, table: Kinds, first: int, last: int) -> bool:
    if last <= first:
        return False
    code, kind = kept[last - 1], table[kept[last - 1]]
    if code == 0x2E and last - first >= 3 and kept[last - 2] == 0x2E and kept[last - 3] == 0x2E:
        return False
    return bool(kind & (TERMINAL | UNPUNCTUATED | CLOSING) or code in (0x22, 0x27))


@compiled
def _cannot_end_a_sentence(codes: Codes, kinds: Kinds, first: int, last: int) -> bool:
    """Whether the line's end decides, whatever citations stand before it: this spares most lines the rest."""
    if last <= first:
        return True
    code = codes[last - 1]
    ends = kinds[last - 1] & (TERMINAL | UNPUNCTUATED | CLOSING)
    return not ends and code not in (_CLOSE, 0x22, 0x27)


@compiled
def _shape_reason(
    kept: Codes, table: Kinds, span: tuple[int, int], words: tuple[int, int], limits: tuple[int, int, bool, bool]
) -> int:
    """Return the reason of words and end why a line goes, or -1."""
    most, least, punctuated, _ = limits
    if words[1] > most:
        return _LONG_WORD
    if punctuated and not _ends_a_sentence(kept, table, span[0], span[1]):
        return _NO_PUNCTUATION
    return _FEW_WORDS if words[0] < least else -1


@compiled
def _content_reason(kept: Codes, first: int, last: int, no_curly: bool, phrases: Phrases) -> int:
    """Return the reason of content why a line goes, or -1; -2 and -3 where the document goes for it."""
    if phrases[0].size and _has_phrase(kept, first, last, phrases[0]):
        return -1 - _LOREM_IPSUM
    if phrases[1].size and _has_phrase(kept, first, last, phrases[1]):
        return _JAVASCRIPT
    for i in range(first, last):
        if no_curly and kept[i] == _CURLY:
            return -1 - _CURLY_BRACKET
    return _POLICY if phrases[2].size and _has_phrase(kept, first, last, phrases[2]) else -1


@compiled
def _strip(kinds: Kinds, first: int, last: int) -> tuple[int, int]:
    while first < last and kinds[first] & SPACE:
        first += 1
    while last > first and kinds[last - 1] & SPACE:
        last -= 1
    return first, last


@compiled
def _sift(
    codes: Codes,
    kinds: Kinds,
    table: Kinds,
    limits: tuple[int, int, bool, bool],
    phrases: Phrases,
    citations: Codes,
) -> tuple[Codes, NDArray[np.int64], int, bool, bool]:
    """Return the lines that stay, joined by newlines, how many went for each reason, and why the document goes.

    Where lines that stay had a blank one between them, one is left: it is where a paragraph ends. Whether there was one
    before the first and behind the last is what comes last.
    """
    kept, removed = np.empty(codes.size + 1, np.uint32), np.zeros(5, np.int64)
    count = begin = blank = 0
    blank_before = False
    while begin < codes.size:
        i = begin
        while i < codes.size and not kinds[i] & BREAK:
            i += 1
        first, last = _strip(kinds, begin, i)
        begin = i + 2 if i + 1 < codes.size and codes[i] == 0x0D and codes[i + 1] == _NEWLINE else i + 1
        if first == last:
            blank = 1
            continue
        if limits[2] and last - first <= limits[0] and _cannot_end_a_sentence(codes, kinds, first, last):
            removed[_NO_PUNCTUATION] += 1
            continue
        place = count + 1 + blank if count else 0
        end = _copy_line(codes, kinds, first, last, citations, kept, place)
        reason = _shape_reason(kept, table, (place, end), _words_of_line(kinds, first, last), limits)
        if reason < 0:
            reason = _content_reason(kept, place, end, limits[3], phrases)
        if reason < -1:
            return kept[:0], removed, -1 - reason, False, False
        if reason >= 0:
            removed[reason] += 1
            continue
        if not count:
            blank_before = blank == 1
        kept[count:place] = _NEWLINE
        count, blank = end, 0
    return kept[:count], removed, 0, blank_before, blank == 1


@dataclass
class Sifted:
    """What C4's rules leave of a text."""

    text: str
    verdict: Verdict | None = None
    removed: Counter[str] = field(default_factory=Counter)
    """Lines that went, by reason."""


def c4(text: Measured, whole_text: str, section: C4Section) -> Sifted:
    """Apply C4's rules: remove lines, judge the rest.

    Args:
        text: the text, or its beginning where it is long.
        whole_text: all of it; long texts are gone through in pieces of whole lines.
        section: the thresholds.
    """
    is_whole = len(text.text) == len(whole_text)
    sifted = _sift_piece(text, section)[0] if is_whole else _sift_pieces(whole_text, section)
    if sifted.verdict is None and section.min_sentences is not None:
        sifted.verdict = below("min_sentences", _sentences(sifted.text, section.min_sentences), section.min_sentences)
    return sifted


def _sentences(text: str, enough: int) -> int:
    """Return the number of sentences, or any that is at least ``enough``."""
    counted = 0
    for size in (_FIRST_LOOK, len(text)):
        if counted < enough:
            part = Measured(text[:size])
            counted = count_sentences(part.codes, part.kinds, *part.words)
    return counted


def _sift_pieces(text: str, section: C4Section) -> Sifted:
    whole, kept, begin, is_paragraph = Sifted(""), [], 0, False
    while begin < len(text) and whole.verdict is None:
        end = text.rfind("\n", begin, begin + MOST_CHARACTERS)
        end = len(text) if len(text) - begin <= MOST_CHARACTERS else end
        if end < 0:  # no line of text is as long
            end = text.find("\n", begin)
            end = len(text) if end < 0 else end
            whole.removed["long_line"] += 1
        else:
            piece, blank_before, blank_after = _sift_piece(Measured(text[begin:end]), section)
            whole.removed += piece.removed
            whole.verdict = piece.verdict
            is_paragraph |= blank_before
            if piece.text:
                kept += ["\n\n" if is_paragraph else "\n", piece.text]
                is_paragraph = False
            is_paragraph |= blank_after or text.endswith("\n", begin, end)
        begin = end + 1
    whole.text = "".join(kept[1:])
    return whole


def _sift_piece(text: Measured, section: C4Section) -> tuple[Sifted, bool, bool]:
    """Return what is left of whole lines, and whether there is a blank one before and behind that."""
    most, least = section.max_word_characters, section.min_words_per_line
    limits = (
        _NO_LIMIT if most is None else most,
        0 if least is None else least,
        section.require_terminal_punctuation,
        section.drop_curly_brackets,
    )
    lowered = text.text.encode("utf-8", "surrogatepass").lower()  # of bytes: ASCII alone, and much faster
    phrases = (
        _present(("lorem ipsum",) if section.drop_lorem_ipsum else (), lowered),
        _present(("javascript",) if section.remove_javascript_lines else (), lowered),
        _present(_POLICY_PHRASES if section.remove_policy_lines else (), lowered),
    )
    citations = _as_codes(_CITATIONS if section.remove_citations and "[" in text.text else ())
    kept, removed, reason, before, after = _sift(text.codes, text.kinds, character_table(), limits, phrases, citations)
    if reason:
        return Sifted("", Verdict("lorem_ipsum" if reason == _LOREM_IPSUM else "curly_bracket", 1, 0)), False, False
    counts = Counter({name: count for name, count in zip(_REASONS, removed.tolist(), strict=True) if count})
    return Sifted(kept.tobytes().decode("utf-32-le", "surrogatepass").strip(), removed=counts), before, after


def _present(phrases: tuple[str, ...], lowered: bytes) -> Codes:
    return _as_codes(tuple(phrase for phrase in phrases if phrase.encode() in lowered))


@lru_cache(maxsize=128)
def _as_codes(phrases: tuple[str, ...]) -> Codes:
    """Return the phrases as the compiled functions take them."""
    return np.array([code for phrase in phrases for code in (*code_points(phrase), 0)], np.uint32)
