"""The stage that replaces personal data by typed placeholders."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from data_prep.account import Account
from data_prep.document import Document, Place, Stage
from data_prep.pii.addresses import find_email, find_ipv4, find_ipv6, find_url_password
from data_prep.pii.keys import find_key, find_private_key
from data_prep.pii.payment import find_cards, find_iban
from data_prep.pii.phones import find_phones
from data_prep.pii.scan import AT, HEXADECIMAL, IBAN, NUMBERS, PRIVATE_KEY, TOKEN, Scanner
from gptdist.config.prep_privacy import PiiSection

SECRET, CARD, BANK, EMAIL, IP, PHONE = "secret", "card_number", "bank_account", "email", "ip_address", "phone_number"
_RANKS = (SECRET, CARD, BANK, EMAIL, IP, PHONE)
"""Which kind a place is where two overlap: the first of these."""

_LEAST_CARD_DIGITS, _LEAST_PHONE_DIGITS = 13, 7


class Span(NamedTuple):
    """Personal data in a text, in bytes of UTF-8."""

    start: int
    end: int
    kind: str


class Finder:
    """Finds personal data.

    Args:
        section: which kinds.
    """

    def __init__(self, section: PiiSection) -> None:
        self._section = section
        self._scanner = Scanner()

    def spans(self, utf8: bytes) -> list[Span]:
        """Return what was found, in order and without overlap."""
        found: list[Span] = []
        urls = self._section.secrets and b"://" in utf8
        for kind, start, end, amount, dots in self._scanner.candidates(utf8):
            if kind == NUMBERS:
                found += self._in_numbers(utf8, (start, end), amount, dots)
            elif kind == AT:
                found += self._at(utf8, (start, end), amount, urls)
            else:
                found += self._in_word(utf8, kind, start, end)
        return _without_overlap(found) if found else found

    def _in_numbers(self, utf8: bytes, place: tuple[int, int], digits: int, dots: int) -> Iterator[Span]:
        section = self._section
        if section.card_numbers and digits >= _LEAST_CARD_DIGITS:
            yield from (Span(*span, CARD) for span in find_cards(utf8, *place))
        if section.ip_addresses and dots >= 3:
            spans = find_ipv4(utf8, *place, private=section.private_ip_addresses)
            yield from (Span(*span, IP) for span in spans)
        if section.phone_numbers and digits >= _LEAST_PHONE_DIGITS:
            yield from (Span(*span, PHONE) for span in find_phones(utf8, *place))

    def _at(self, utf8: bytes, place: tuple[int, int], dots: int, has_url: bool) -> Iterator[Span]:
        start, end = place
        password = find_url_password(utf8, utf8.index(b"@", start)) if has_url else None
        if password:
            yield Span(*password, SECRET)
        elif dots and self._section.emails:
            email = find_email(utf8, start, end)
            if email:
                yield Span(*email, EMAIL)

    def _in_word(self, utf8: bytes, kind: int, start: int, end: int) -> Iterator[Span]:
        section = self._section
        span, name = None, SECRET
        if kind == TOKEN and section.secrets:
            span = find_key(utf8, start, end)
        elif kind == PRIVATE_KEY and section.secrets:
            span = find_private_key(utf8, start)
        elif kind == HEXADECIMAL and section.ip_addresses:
            span, name = find_ipv6(utf8, start, end, private=section.private_ip_addresses), IP
        elif kind == IBAN and section.bank_accounts:
            span, name = find_iban(utf8, start, end), BANK
        if span:
            yield Span(*span, name)


def _without_overlap(spans: Iterable[Span]) -> list[Span]:
    """Return the spans in order; of those that overlap, the one whose kind comes first, then the longer one."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if not kept or kept[-1].end <= span.start:
            kept.append(span)
        elif _RANKS.index(span.kind) < _RANKS.index(kept[-1].kind):
            kept[-1] = span
    return kept


def pii_stage(section: PiiSection, place: Place, account: Account) -> Stage:
    """Return the stage that replaces personal data and secrets by the section's placeholders and counts them.

    It drops nothing, and every other byte of the text stays. What is looked for is written in ASCII and found in
    text of any script; digits that are not ASCII (Arabic-Indic, Devanagari, full-width) are not read, so a phone or
    card number in them stays. Names, postal addresses and account numbers that are no IBAN stay too.

    Args:
        section: which kinds, and what stands in their place.
        place: not used: what a document becomes depends on it alone.
        account: gets ``pii.email``, ``pii.phone_number`` … for each that is replaced, ``pii.documents`` for each text
            that changed.
    """
    finder = Finder(section)
    placeholders = {kind: text.encode() for kind, text in section.placeholders.tree().items()}

    def stage(documents: Iterator[Document]) -> Iterator[Document]:
        for document in documents:
            spans = finder.spans(document.utf8)
            if not spans:
                yield document
                continue
            account.count("pii.documents")
            for span in spans:
                account.count(f"pii.{span.kind}")
            yield document.with_text(_replaced(document.utf8, spans, placeholders).decode())

    return stage


def _replaced(utf8: bytes, spans: Iterable[Span], placeholders: dict[str, bytes]) -> bytes:
    parts, done = [], 0
    for span in spans:
        parts += [utf8[done : span.start], placeholders[span.kind]]
        done = span.end
    return b"".join([*parts, utf8[done:]])
