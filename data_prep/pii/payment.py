"""Numbers of payment cards and bank accounts, both with check digits."""

import re
from collections.abc import Iterator

_CARD = re.compile(
    rb"(?<![\w./])(?<![0-9][ -])"
    rb"(?:[0-9]{13,19}"
    rb"|[0-9]{4}(?P<four>[ -])[0-9]{4}(?P=four)[0-9]{4}(?P=four)[0-9]{4}(?:(?P=four)[0-9]{3})?"
    rb"|3[0-9]{3}(?P<six>[ -])[0-9]{6}(?P=six)[0-9]{4,5})"
    rb"(?![\w]|\.[0-9]|[ -][0-9])"
)
_ISSUERS = tuple(
    (int(low), int(high), frozenset(range(int(least), int(most) + 1)))
    for low, high, least, most in (
        issuer.split()
        for issuer in (
            "4 4 13 13",  # Visa
            "4 4 16 16",
            "4 4 19 19",
            "51 55 16 16",  # Mastercard
            "2221 2720 16 16",
            "34 34 15 15",  # American Express
            "37 37 15 15",
            "6011 6011 16 19",  # Discover
            "644 659 16 19",
            "3528 3589 16 19",  # JCB
            "300 305 14 19",  # Diners Club
            "36 36 14 19",
            "38 39 14 19",
            "62 62 16 19",  # UnionPay
            "2200 2204 16 19",  # Mir
        )
    )
)
"""Lowest and highest prefix, and numbers of digits. **Source**: ISO/IEC 7812 and the issuers' published ranges."""

_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
"""Sum of the digits of twice a digit."""

_IBAN_LENGTHS = {
    match[1].encode(): int(match[2])
    for match in re.finditer(
        r"([A-Z]{2})([0-9]{2})",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 "
        "EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 "
        "IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 "
        "NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 "
        "SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30",
    )
}
"""Characters of an IBAN by country. **Source**: SWIFT IBAN Registry (ISO 13616)."""

_NO_LETTER = re.compile(rb"[^A-Za-z0-9_]|\Z")


def find_cards(utf8: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the bytes of the card numbers among numbers.

    In one piece or in the groups that are printed on cards, by blanks or hyphens, with a prefix and a length that an
    issuer uses and a correct Luhn digit; other numbers of the form pass the last test one time in ten.
    """
    for found in _CARD.finditer(utf8, start, min(len(utf8), end + 2)):
        digits = found[0].replace(b" ", b"").replace(b"-", b"")
        if _has_issuer(digits) and passes_luhn(digits):
            yield found.span()


def _has_issuer(digits: bytes) -> bool:
    size = len(digits)
    return any(size in sizes and low <= int(digits[: len(str(low))]) <= high for low, high, sizes in _ISSUERS)


def passes_luhn(digits: bytes) -> bool:
    """Whether the last of the ASCII digits is the check digit of the others.

    **Source**: Luhn, US patent 2,950,048; ISO/IEC 7812-1, annex B.
    """
    values = [digit - 48 for digit in reversed(digits)]
    return (sum(values[::2]) + sum(_DOUBLED[digit] for digit in values[1::2])) % 10 == 0


def find_iban(utf8: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Return the bytes of the IBAN that begins at ``start``, with or without blanks, if its check digits are right."""
    wanted = _IBAN_LENGTHS.get(utf8[start : start + 2])
    if wanted is None:
        return None
    stop = start
    compact = bytearray()
    while stop < end and len(compact) < wanted:
        if utf8[stop] != 32:
            compact.append(utf8[stop])
        stop += 1
    if len(compact) < wanted or not _NO_LETTER.match(utf8, stop):
        return None
    rearranged = (compact[4:] + compact[:4]).decode()
    return (start, stop) if int("".join(str(int(letter, 36)) for letter in rearranged)) % 97 == 1 else None
