"""One pass over a text's bytes that finds the few places where personal data may stand.

Everything looked for is ASCII, so the bytes of other scripts only ever separate. What a place holds is decided by
the other modules, in Python, on the place alone: a page without candidates costs no more than this pass.
"""

import string

import numpy as np

from data_prep.compiled import compiled

NUMBERS, AT, TOKEN, HEXADECIMAL, PRIVATE_KEY, IBAN = range(6)
"""Kinds of candidates. ``amount`` is the digits of numbers, the dots of a domain that two letters follow, else 0."""

_DIGIT, _SEPARATOR, _TOKEN, _HEX, _LOCAL, _DOMAIN, _UPPER, _LOWER = (1 << bit for bit in range(8))
_LEAST_PHONE_DIGITS = 7
_LEAST_TOKEN_BYTES = 20
_MOST_GAP = 3
_MOST_LOCAL_BYTES = 128
_MOST_DOMAIN_BYTES = 255
_MOST_HEX_BYTES = 46
_LEAST_IBAN_REST, _MOST_IBAN_BYTES = 11, 44
_COLUMNS = 5


def byte_classes() -> np.ndarray:
    """Return what each byte may be part of, as bits."""
    members = {
        _DIGIT: string.digits,
        _SEPARATOR: " .-()/+",
        _TOKEN: string.ascii_letters + string.digits + "_-",
        _HEX: string.hexdigits + ":",
        _LOCAL: string.ascii_letters + string.digits + "._%+-",
        _DOMAIN: string.ascii_letters + string.digits + ".-",
        _UPPER: string.ascii_uppercase,
        _LOWER: string.ascii_lowercase,
    }
    classes = np.zeros(256, dtype=np.uint8)
    for bit, characters in members.items():
        classes[list(characters.encode())] |= bit
    return classes


class Scanner:
    """Finds candidates; keeps its buffer from text to text."""

    def __init__(self) -> None:
        self._classes = byte_classes()
        self._out = np.empty((256, _COLUMNS), dtype=np.int64)

    def candidates(self, utf8: bytes) -> list[list[int]]:
        """Return rows of kind, start, end, amount, dots; start and end are bytes, dots only tell of numbers."""
        text = np.frombuffer(utf8, dtype=np.uint8)
        count = scan(text, self._classes, self._out)
        if count > len(self._out):
            self._out = np.empty((2 * count, _COLUMNS), dtype=np.int64)
            scan(text, self._classes, self._out)
        return self._out[:count].tolist() if count else []


@compiled
def scan(text: np.ndarray, classes: np.ndarray, out: np.ndarray) -> int:
    """Write candidates into ``out`` as far as they fit, and return how many there are."""
    count = _numbers(text, classes, out, 0)
    count = _tokens(text, classes, out, count)
    return _hexadecimals(text, classes, out, count)


@compiled
def _emit(out: np.ndarray, count: int, row: tuple[int, int, int, int, int]) -> int:
    if count < len(out):
        for column in range(5):
            out[count, column] = row[column]
    return count + 1


@compiled
def _numbers(text: np.ndarray, classes: np.ndarray, out: np.ndarray, count: int) -> int:
    """Find groups of digits with little between them: enough digits for a phone, or dots for an IPv4 address."""
    size, i = len(text), 0
    while i < size:
        if not classes[text[i]] & _DIGIT:
            i += 1
            continue
        start = end = i
        while start > 0 and end - start < 3 and (text[start - 1] == 40 or text[start - 1] == 43):  # ( and +
            start -= 1
        digits = dots = gap = 0
        while i < size:
            if classes[text[i]] & _DIGIT:
                digits += 1
                gap = 0
                i += 1
                end = i
                continue
            width = _separator_width(text, classes, i)
            if width == 0 or gap == _MOST_GAP:
                break
            if text[i] == 46 and gap == 0 and i + 1 < size and classes[text[i + 1]] & _DIGIT:
                dots += 1
            gap += 1
            i += width
        if digits >= _LEAST_PHONE_DIGITS or dots >= 3:
            count = _emit(out, count, (NUMBERS, start, end, digits, dots))
    return count


@compiled
def _separator_width(text: np.ndarray, classes: np.ndarray, i: int) -> int:
    """Return how many bytes the separator at ``i`` takes: ASCII, no-break spaces, no-break hyphen, en dash; else 0."""
    if classes[text[i]] & _SEPARATOR:
        return 1
    if text[i] == 0xC2 and i + 1 < len(text) and text[i + 1] == 0xA0:
        return 2
    if text[i] == 0xE2 and i + 2 < len(text) and text[i + 1] == 0x80 and text[i + 2] in (0x91, 0x93, 0xAF):
        return 3
    return 0


@compiled
def _tokens(text: np.ndarray, classes: np.ndarray, out: np.ndarray, count: int) -> int:
    """Find ``@`` between a name and a domain, long opaque words, private keys' first lines, beginnings of IBANs."""
    begin = 0
    seen = 0  # classes of the word's bytes so far
    has_underscore = False
    for i in range(len(text) + 1):
        what = classes[text[i]] if i < len(text) else 0
        if what & _TOKEN:
            seen |= what
            has_underscore |= text[i] == 95
            if what & _UPPER:
                if text[i] == 66 and i >= 5 and _five_dashes(text, i - 5):  # B of BEGIN
                    count = _emit(out, count, (PRIVATE_KEY, i - 5, i, 0, 0))
                if begin == i:
                    length = _iban_bytes(text, classes, i)
                    if length:
                        count = _emit(out, count, (IBAN, i, i + length, 0, 0))
            continue
        mixed = seen & _UPPER and seen & _LOWER and has_underscore
        if i - begin >= _LEAST_TOKEN_BYTES and (seen & _DIGIT or mixed):
            count = _emit(out, count, (TOKEN, begin, i, 0, 0))
        begin, seen, has_underscore = i + 1, 0, False
        if i + 1 < len(text) and text[i] == 64:
            count = _at(text, classes, out, count, i)
    return count


@compiled
def _five_dashes(text: np.ndarray, i: int) -> bool:
    return text[i] == text[i + 1] == text[i + 2] == text[i + 3] == text[i + 4] == 45


@compiled
def _iban_bytes(text: np.ndarray, classes: np.ndarray, i: int) -> int:
    """Return the length of what may be an IBAN that begins at ``i``, or 0."""
    if i + 4 + _LEAST_IBAN_REST > len(text) or not classes[text[i + 1]] & _UPPER:
        return 0
    if not (classes[text[i + 2]] & _DIGIT and classes[text[i + 3]] & _DIGIT):
        return 0
    letters, end, j = 0, i, i + 4
    while j < len(text) and j - i < _MOST_IBAN_BYTES:
        if classes[text[j]] & (_DIGIT | _UPPER):
            letters += 1
            end = j + 1
        elif text[j] != 32 or text[j - 1] == 32:
            break
        j += 1
    return end - i if letters >= _LEAST_IBAN_REST else 0


@compiled
def _at(text: np.ndarray, classes: np.ndarray, out: np.ndarray, count: int, at: int) -> int:
    """Take in the name before and the domain after an ``@``; letters of Latin, Greek, Cyrillic alphabets too."""
    start, end, dots = at, at + 1, 0
    while start > 0 and at - start < _MOST_LOCAL_BYTES:
        if classes[text[start - 1]] & _LOCAL:
            start -= 1
        elif start > 1 and _two_byte_letter(text[start - 2], text[start - 1]):
            start -= 2
        else:
            break
    while end < len(text) and end - at <= _MOST_DOMAIN_BYTES:
        if classes[text[end]] & _DOMAIN:
            dots += text[end] == 46 and end + 2 < len(text) and text[end + 1] > 46 and text[end + 2] > 46
            end += 1
        elif end + 1 < len(text) and _two_byte_letter(text[end], text[end + 1]):
            end += 2
        else:
            break
    return _emit(out, count, (AT, start, end, dots, 0)) if end > at + 1 else count


@compiled
def _two_byte_letter(first: int, second: int) -> bool:
    """Whether two bytes of UTF-8 are a letter of an alphabet whose words stand between spaces."""
    return 0xC3 <= first <= 0xD4 and 0x80 <= second < 0xC0 and not (first == 0xC3 and (second & 0xDF) == 0x97)  # × ÷


@compiled
def _hexadecimals(text: np.ndarray, classes: np.ndarray, out: np.ndarray, count: int) -> int:
    """Find what may be an IPv6 address: hexadecimal digits with seven colons, or with two in a row."""
    size, i = len(text), 0
    while i < size:
        if text[i] != 58:
            i += 1
            continue
        begin = end = i
        while begin > 0 and i - begin < 5 and classes[text[begin - 1]] & _HEX:
            begin -= 1
        colons, double = 0, False
        while end < size and classes[text[end]] & _HEX:
            if text[end] == 58:
                colons += 1
                double |= end > begin and text[end - 1] == 58
            end += 1
        alone = begin == 0 or not classes[text[begin - 1]] & _TOKEN
        alone = alone and (end == size or not classes[text[end]] & (_UPPER | _LOWER))
        if alone and (double or colons >= 7) and 2 <= colons <= 8 and 4 <= end - begin <= _MOST_HEX_BYTES:
            count = _emit(out, count, (HEXADECIMAL, begin, end, 0, 0))
        i = end
    return count
