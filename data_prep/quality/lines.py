"""Lines and paragraphs: their shapes, and how many stand in a document more than once."""

import numpy as np

from data_prep.compiled import compiled
from data_prep.quality.characters import BREAK, SPACE, TERMINAL, UNPUNCTUATED, WIDE
from data_prep.quality.words import Codes, Kinds, Places

_NEWLINE = 0x0A


@compiled
def _span_hash(codes: Codes, start: int, end: int) -> np.uint64:
    """Return a 64-bit hash of a span, two characters at a time."""
    state = np.uint64(end - start) * np.uint64(0xD6E8FEB86659FD93)
    i = start
    while i + 1 < end:
        pair = np.uint64(codes[i]) | (np.uint64(codes[i + 1]) << np.uint64(32))
        state = (state ^ pair) * np.uint64(0x9E3779B97F4A7C15)
        state ^= state >> np.uint64(31)
        i += 2
    if i < end:
        state = (state ^ np.uint64(codes[i])) * np.uint64(0x9E3779B97F4A7C15)
    return state ^ (state >> np.uint64(29))


@compiled
def count_repeated(codes: Codes, starts: Places, ends: Places) -> tuple[int, int]:
    """Return how many spans equal an earlier one, and their characters."""
    slots = 16
    while slots < 2 * starts.size:
        slots *= 2
    keys, used = np.empty(slots, np.uint64), np.zeros(slots, np.uint8)
    mask = np.uint64(slots - 1)
    spans = characters = 0
    for i in range(starts.size):
        key = _span_hash(codes, starts[i], ends[i])
        slot = key & mask
        while used[slot] and keys[slot] != key:
            slot = (slot + np.uint64(1)) & mask
        if used[slot]:
            spans += 1
            characters += ends[i] - starts[i]
        used[slot], keys[slot] = 1, key
    return spans, characters


@compiled
def find_newlines(codes: Codes) -> Places:
    """Return the places of the newlines."""
    count = 0
    for i in range(codes.size):
        count += codes[i] == _NEWLINE
    places = np.empty(count, np.int32)
    count = 0
    for i in range(codes.size):
        if codes[i] == _NEWLINE:
            places[count] = i
            count += 1
    return places


@compiled
def find_spans(newlines: Places, first: int, last: int, least: int) -> tuple[Places, Places]:
    r"""Return the spans between runs of at least ``least`` newlines, as ``re.split(r"\n{least,}")`` does."""
    starts, ends = np.empty(newlines.size + 1, np.int32), np.empty(newlines.size + 1, np.int32)
    count, begin, k = 0, first, 0
    while k < newlines.size:
        run = k
        while k + 1 < newlines.size and newlines[k + 1] == newlines[k] + 1:
            k += 1
        k += 1
        if k - run >= least and first <= newlines[run] < last:
            starts[count], ends[count] = begin, newlines[run]
            count += 1
            begin = newlines[k - 1] + 1
    starts[count], ends[count] = begin, last
    return starts[: count + 1], ends[: count + 1]


@compiled
def strip(kinds: Kinds, first: int, last: int) -> tuple[int, int]:
    """Return the span without white space at its ends."""
    while first < last and kinds[first] & SPACE:
        first += 1
    while last > first and kinds[last - 1] & SPACE:
        last -= 1
    return first, last


@compiled
def measure_repetition(codes: Codes, kinds: Kinds, newlines: Places) -> tuple[int, int, int, int, int, int]:
    """Return paragraphs, how many are repeated, their characters; and the same of lines."""
    first, last = strip(kinds, 0, codes.size)
    starts, ends = find_spans(newlines, first, last, 2)
    paragraphs = starts.size
    repeated, characters = count_repeated(codes, starts, ends)
    starts, ends = find_spans(newlines, 0, codes.size, 1)
    repeated_lines, line_characters = count_repeated(codes, starts, ends)
    return paragraphs, repeated, characters, starts.size, repeated_lines, line_characters


@compiled
def _ends_with_ellipsis(codes: Codes, first: int, last: int) -> bool:
    if last - first >= 3 and codes[last - 1] == 0x2E and codes[last - 2] == 0x2E and codes[last - 3] == 0x2E:
        return True
    return bool(last > first and codes[last - 1] == 0x2026)


@compiled
def measure_line_shapes(codes: Codes, kinds: Kinds) -> tuple[int, int, int]:
    """Count lines as ``str.splitlines`` finds them, those that begin with a bullet, those that end with an ellipsis."""
    lines = bullets = ellipses = begin = i = 0
    while i <= codes.size:
        if i < codes.size and not kinds[i] & BREAK:
            i += 1
            continue
        if i == codes.size and begin == i:
            break
        first, last = strip(kinds, begin, i)
        lines += 1
        if first < last and codes[first] in (0x2022, 0x2D):
            bullets += 1
        ellipses += _ends_with_ellipsis(codes, first, last)
        if i + 1 < codes.size and codes[i] == 0x0D and codes[i + 1] == _NEWLINE:
            i += 1
        i += 1
        begin = i
    return lines, bullets, ellipses


@compiled
def measure_web_lines(codes: Codes, kinds: Kinds, newlines: Places, short: int) -> tuple[int, int, int, int]:
    """Measure lines that are not blank.

    Returns:
        Lines, those that end with a terminal mark, those of at most ``short`` columns, and characters in lines that
        stand earlier.
    """
    starts, ends = find_spans(newlines, 0, codes.size, 1)
    lines = punctuated = brief = 0
    for i in range(starts.size):
        first, last = strip(kinds, starts[i], ends[i])
        if first == last:
            continue
        starts[lines], ends[lines] = starts[i], ends[i]
        lines += 1
        punctuated += kinds[last - 1] & (TERMINAL | UNPUNCTUATED) != 0
        columns = ends[i] - starts[i]
        if columns <= short:
            for j in range(first, last):
                columns += kinds[j] & WIDE != 0
            brief += columns <= short
    _, characters = count_repeated(codes, starts[:lines], ends[:lines])
    return lines, punctuated, brief, characters
