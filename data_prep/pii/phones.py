"""Phone numbers, by the forms in which people write them."""

import re
from collections.abc import Iterator
from itertools import pairwise

_BLANK = rb"(?:[ .-]|\xc2\xa0|\xe2\x80[\x91\x93\xaf])"
_WORLD = (
    rb"(?:(?<![\w+.])\+|(?<![\w.,/+-])(?P<zeros>00)(?=[1-9]))"
    rb"(?P<world>[1-9](?:(?:[ ./()-]|\xc2\xa0|\xe2\x80[\x91\x93\xaf]){0,3}[0-9]){7,15})(?![\w]|[./-][0-9])"
)
"""``+44 20 7946 0958``, ``+49 (0)171 1234567``, ``0044 20 …``; cut to the country's length afterwards."""

_AMERICA = (
    rb"(?<![\w.,/+-])(?:1[ .-])?(?:\([2-9](?!11)[0-9]{2}\)[ -]?[2-9][0-9]{2}[ .-]"
    rb"|[2-9](?!11)[0-9]{2}(?:-[2-9][0-9]{2}-|\.[2-9][0-9]{2}\.|[ /][2-9][0-9]{2}-))[0-9]{4}"
)
"""``(415) 555-2671``, ``1-415-555-2671``, ``415.555.2671``."""

_ALONE = rb"(?<![\w.,/+-])(?<![0-9] )"
_PAIRS = rb"(?P<pairs>0[1-9](?P<pair>" + _BLANK + rb")[0-9]{2}(?:(?P=pair)[0-9]{2}){3})"
"""``06 12 34 56 78``."""

_TWO_PAIRS = rb"0[1-9][0-9]{0,2}[ /-][0-9]{3}[ -][0-9]{2}[ -][0-9]{2}"
"""``044 123 45 67``, ``0532 123 45 67``."""

_TRUNK = rb"(?P<trunk>(?:\(0[1-9][0-9]{0,4}\) ?|0[1-9][0-9]{0,4}(?: ?[/-] ?| ))[0-9]{3,8}(?:[ -][0-9]{3,5}){0,2})"
"""``020 7946 0958``, ``(020) 7946 0958``, ``0171/1234567``, ``03-1234-5678``; 9 to 12 digits."""

_CHINA = rb"1[3-9][0-9](?:-[0-9]{4}-| [0-9]{4} )[0-9]{4}"
_BRAZIL = rb"\([1-9][0-9]\) ?9?[ ]?[0-9]{4}-[0-9]{4}"
_RUSSIA = rb"(?:[78][ -]?)?\([0-9]{3,4}\)[ -]?[0-9]{2,3}-[0-9]{2}-[0-9]{2}|8[ -][0-9]{3}[ -][0-9]{3}-[0-9]{2}-[0-9]{2}"
"""``138 0013 8000``, ``(11) 91234-5678``, ``8 (495) 123-45-67``."""

_NATIONAL = b"|".join((_PAIRS, _TWO_PAIRS, _TRUNK, _CHINA, _BRAZIL, _RUSSIA))
_FORMS = re.compile(_WORLD + rb"|(?:" + _AMERICA + rb"|" + _ALONE + rb"(?:" + _NATIONAL + rb"))(?![\w]|[ ./,-][0-9])")
_AFTER_WORD = re.compile(rb"(?<![\w.,/+-])\(?[0-9](?:(?:\) ?|[ -]|\xc2\xa0)?\(?[0-9]){6,13}(?![\w]|[./:,-][0-9])")
"""Any number of fitting length; taken only after one of the words below."""

_WORDS = tuple(
    re.findall(
        rb"[^ ]+",
        (
            "phone phones telephone telephones tel fax telefax mobile mobil cell cellphone handy gsm whatsapp telefon "
            "telefono teléfono telefone téléphone tél celular móvil puhelin telefoon τηλ τηλέφωνο телефон Телефон "
            "телефоны тел Тел ТЕЛ факс Факс 電話 電話番号 电话 电话号码 電話號碼 手机 手机号 手机号码 手機 手機號碼 "
            "联系方式 전화 전화번호 휴대폰 هاتف الهاتف تلفون جوال الجوال טלפון फ़ोन फोन โทรศัพท์ โทร thoại"
        ).encode(),
    )
)
"""Words before a number that make it a phone number; bytes of other alphabets are compared with their case."""

_FILLERS = (b"number", b"numbers", b"no", b"nr", b"num", b"is", "为".encode(), "是".encode())
_LAST_WORDS = _WORDS + _FILLERS
_FILLING = b" .:=-#\t(/\"'"

_WIDE_COLON, _NO_BREAK_SPACE = "\uff1a".encode(), b"\xc2\xa0"
_WORD_REACH = 48
_DATE = re.compile(
    rb"(?:19|20)[0-9]{2}([ ./-]?)(?:0?[1-9]|1[0-2])\1(?:0?[1-9]|[12][0-9]|3[01])"
    rb"|(?:0?[1-9]|[12][0-9]|3[01])([ ./-])(?:0?[1-9]|1[0-2])\2(?:19|20)[0-9]{2}"
    rb"|(?:19|20)[0-9]{2} ?- ?(?:19|20)[0-9]{2}"
)
_LONG_CODE = re.compile(r"2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]")
_LONGER_CODE = re.compile(r"(?:2[1-69]|3[578]|42|5[09]|6[789]|8[0578]|9[679])[0-9]")
"""Country codes of two digits, and beginnings of those of three. **Source**: ITU-T E.164 list of assigned codes."""

_NATIONAL_DIGITS = {
    "1": (10, 10), "7": (10, 10), "20": (8, 10), "27": (9, 9), "30": (10, 10), "31": (9, 9), "32": (8, 9),
    "33": (9, 9), "34": (9, 9), "39": (8, 11), "41": (9, 9), "43": (7, 12), "44": (9, 10), "45": (8, 8),
    "46": (7, 9), "47": (8, 8), "48": (9, 9), "49": (7, 11), "52": (10, 11), "54": (10, 11), "55": (10, 11),
    "60": (8, 10), "61": (9, 9), "65": (8, 8), "66": (8, 9), "81": (9, 10), "82": (8, 10), "84": (9, 10),
    "86": (9, 11), "90": (10, 10), "91": (10, 10), "92": (9, 10), "98": (10, 10), "852": (8, 8), "886": (8, 9),
    "966": (8, 9), "971": (8, 9), "972": (8, 9),
}  # fmt: skip
"""Fewest and most digits after the country code; others have 7 … 12."""

_TRUNK_MARK = re.compile(rb"\(0\)")


def find_phones(utf8: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the bytes of the phone numbers among numbers.

    Found: a country code after ``+`` or ``00`` and as many digits as the country has; national forms of North
    America, France, Russia, China, Brazil, and those that begin with 0; any number after a word such as ``phone``.
    Not found: other numbers that only a person knows to be one, digits that are not ASCII, letters for digits.

    Args:
        utf8: the text.
        start: first byte of the numbers.
        end: byte after the last digit.
    """
    if _DATE.fullmatch(utf8, start, end):
        return  # the most frequent of all numbers, so it is looked for first
    reach = min(len(utf8), end + 2)
    done = start
    if _follows_word(utf8, start):
        found = _AFTER_WORD.match(utf8, start, reach)
        if found is not None and not _DATE.fullmatch(found[0]):
            yield found.span()
            done = found.end()
    for found in _FORMS.finditer(utf8, done, reach):
        span = _checked(found)
        if span is not None:
            yield span


def _follows_word(utf8: bytes, start: int) -> bool:
    before = utf8[max(0, start - _WORD_REACH) : start]
    before = before.replace(_WIDE_COLON, b":").replace(_NO_BREAK_SPACE, b" ").rstrip(_FILLING).lower()
    if not before.endswith(_LAST_WORDS):
        return False
    return _ends_with_word(before, _WORDS) or any(
        _ends_with_word(before, (filler,)) and _ends_with_word(before.removesuffix(filler).rstrip(_FILLING), _WORDS)
        for filler in _FILLERS
    )


def _ends_with_word(text: bytes, words: tuple[bytes, ...]) -> bool:
    """Whether ``text`` ends with one of ``words``, with no letter of ASCII right before it."""
    return text.endswith(words) and any(text.endswith(word) and not text[: -len(word)][-1:].isalpha() for word in words)


def _checked(found: re.Match[bytes]) -> tuple[int, int] | None:
    """Return where a number of one of the forms stands, or None if what no pattern can say speaks against it."""
    if found["world"]:
        length = _international_bytes(found["world"], grouped=bool(found["zeros"]))
        return (found.start(), found.start("world") + length) if length else None
    if found["pairs"]:
        pairs = [int(pair) for pair in re.findall(rb"[0-9]{2}", found["pairs"])]
        counting = all(right - left == pairs[1] - pairs[0] for left, right in pairwise(pairs))
        return None if counting else found.span()
    if found["trunk"]:
        digits = _digits(found["trunk"])
        least = 10 if found["trunk"].count(b" ") and b"-" not in found["trunk"] else 9
        return found.span() if least <= len(digits) <= 12 else None
    return found.span()


def _international_bytes(text: bytes, *, grouped: bool) -> int:
    """Return how much of ``text``, from the country code on, is a number of that country; 0 if nothing is.

    Args:
        text: digits and what stands between them.
        grouped: whether digits in one piece do not count.
    """
    if grouped and text.isdigit():
        return 0
    ends = [group.end() for group in re.finditer(rb"[0-9]+", text)]
    if len(ends) == 2 and text[: ends[0] + 1].endswith(b"."):
        return 0  # a decimal number
    for end in reversed(ends):
        digits = _digits(_TRUNK_MARK.sub(b"", text[:end]))
        code = _country_code(digits) if ends[0] >= 3 else _country_code(digits[: ends[0]])  # never cut by a blank
        least, most = _NATIONAL_DIGITS.get(code, (7, 12))
        national = digits[len(code) :]
        if code and least <= len(national) <= most and (national[0] != "0" or code in ("39", "225")):
            return end
    return 0


def _country_code(digits: str) -> str:
    if digits[:1] in ("1", "7"):
        return digits[:1]
    found = _LONG_CODE.match(digits) or _LONGER_CODE.match(digits)
    return found[0] if found and found[0] != "999" else ""


def _digits(text: bytes) -> str:
    return "".join(chr(byte) for byte in text if 48 <= byte <= 57)
