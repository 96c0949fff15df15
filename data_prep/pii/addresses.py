"""E-mail and IP addresses, and passwords in URLs."""

import ipaddress
import re
from collections.abc import Iterator

_TOP_LEVEL = re.compile(rb"[A-Za-z]{2,24}|[Xx][Nn]--[A-Za-z0-9-]{2,59}|(?:[\xc3-\xd4][\x80-\xbf]){2,24}")
_LABEL = re.compile(rb"[^.-](?:[^.]{0,61}[^.-])?")
_NO_TOP_LEVEL = frozenset(
    b"png jpg jpeg gif svg webp bmp ico css js jsx ts tsx json html htm xml txt php pdf mp3 mp4 tgz gz whl jar exe dll "
    b"service socket timer target slice scope mount device".split()
)
"""Ends of file and systemd unit names (``icon@2x.png``, ``getty@tty1.service``), none of them a domain."""

_REPOSITORY_USERS = frozenset((b"git", b"hg", b"svn"))
_URL_PASSWORD = re.compile(rb"://[^\s/@:]{0,64}:([^\s/@<{\[$%*][^\s/@]{0,99})\Z")
"""A password does not begin as a stand-in does: ``<password>``, ``${PASSWORD}``, ``***``."""

_URL_REACH = 172

_QUAD = re.compile(rb"(?<![\w.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![\w]|\.[0-9])")
_VERSION_BEFORE = re.compile(
    rb"(?:\b(?:versions?|ver|v|release|build|firmware|driver|revision|rev|section|sec|chapter|rule)\.?|\xc2\xa7)"
    rb"[\s:=#]{0,3}\Z",
    re.IGNORECASE,
)
_PRODUCT_BEFORE = re.compile(rb"[A-Za-z][A-Za-z0-9_.]*/\Z")
_ADDRESS_BEFORE = re.compile(
    rb"\b(?:ips?|ipv4|dns|address|host|hostname|server|nameserver|resolver|gateway|ping|traceroute|connect\w*|client)\b"
    rb"|://|@",
    re.IGNORECASE,
)
_SMALL_SUM = 100
"""Four octets of a person's address add up to less once in a thousand; those of versions and sections nearly always."""

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_DOCUMENTATION = ipaddress.IPv6Network("3fff::/20")
"""Not known to the ``ipaddress`` of older Pythons. **Source**: RFC 9637."""


def find_email(utf8: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Return the bytes of the e-mail address around an ``@``, if it is one.

    Not found: quoted names, addresses that are spelt out (``jane at example dot com``), domains in scripts without
    capital letters.

    Args:
        utf8: the text.
        start: where the characters before the ``@`` begin that a name may hold.
        end: where the characters after it end that a domain may hold.
    """
    at = utf8.index(b"@", start)
    name = utf8[start:at].lstrip(b".%+-")
    name = name[name.rfind(b"..") + 2 :] if b".." in name else name
    start = at - len(name)
    domain = _domain(utf8[at + 1 : end])
    if not name or name.endswith(b".") or not domain or utf8[start - 1 : start] == b"@":
        return None
    after = utf8[at + 1 + len(domain) : at + 2 + len(domain)]
    if after == b"(" or (name.lower() in _REPOSITORY_USERS and after in (b":", b"/")):
        return None  # a call in a program, a repository
    return start, at + 1 + len(domain)


def _domain(text: bytes) -> bytes:
    """Return the longest beginning of ``text`` that is a domain, or nothing."""
    labels = text.split(b".")
    for number, label in enumerate(labels):
        if not _LABEL.fullmatch(label):
            labels = labels[:number]
            break
    while len(labels) > 1:
        if _TOP_LEVEL.fullmatch(labels[-1]):
            return b"" if labels[-1].lower() in _NO_TOP_LEVEL else b".".join(labels)
        labels.pop()
    return b""


def find_url_password(utf8: bytes, at: int) -> tuple[int, int] | None:
    """Return the bytes of the password in ``scheme://user:password@host``, given where the ``@`` stands."""
    before = utf8[max(0, at - _URL_REACH) : at]
    found = _URL_PASSWORD.search(before) if b"://" in before else None
    return (at - len(found[1]), at) if found else None


def find_ipv4(utf8: bytes, start: int, end: int, *, private: bool) -> Iterator[tuple[int, int]]:
    """Yield the bytes of the IPv4 addresses among numbers; versions and numbers of sections are not meant.

    Args:
        utf8: the text.
        start: first byte of the numbers.
        end: byte after the last digit.
        private: whether addresses that are not of the public internet count.
    """
    for found in _QUAD.finditer(utf8, start, min(len(utf8), end + 2)):
        try:
            address = ipaddress.IPv4Address(found[0].decode())
        except ValueError:
            continue
        if (private or _is_public(address)) and _is_address(utf8, found.start(), address):
            yield found.span()


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one machine's on the public internet, not a network's (which ends in zeros)."""
    network = address.packed.endswith(bytes(len(address.packed) // 2))
    return address.is_global and not address.is_multicast and not network and address not in _DOCUMENTATION


def _is_address(utf8: bytes, start: int, address: ipaddress.IPv4Address) -> bool:
    """Whether the four numbers at ``start`` are meant as an address, by what stands before them."""
    before = utf8[max(0, start - 32) : start].rpartition(b"\n")[2]
    if _VERSION_BEFORE.search(before) or _PRODUCT_BEFORE.search(before[-16:]):
        return False
    if not _is_public(address):
        return True
    return sum(address.packed) >= _SMALL_SUM or _ADDRESS_BEFORE.search(before) is not None


def find_ipv6(utf8: bytes, start: int, end: int, *, private: bool) -> tuple[int, int] | None:
    """Return the bytes of an IPv6 address among hexadecimal digits and colons; an address within IPv4 is not found."""
    text = utf8[start:end]
    if text.endswith(b":") and not text.endswith(b"::"):
        text = text[:-1]  # of the sentence
    try:
        address = ipaddress.IPv6Address(text.decode())
    except ValueError:
        return None
    public = address in _GLOBAL_UNICAST and _is_public(address)
    listed = private and not address.is_unspecified and (address.is_private or address.is_link_local)
    return (start, start + len(text)) if public or listed else None
