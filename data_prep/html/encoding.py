"""The characters of a page: what its server or its own header says is a hint, its bytes decide."""

import codecs
import re

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)
_META_BYTES = 4096
_WIDER = {"shift_jis": "cp932", "euc_kr": "cp949", "gbk": "gb18030", "gb2312": "gb18030", "big5": "big5hkscs"}
"""What browsers read by a label is a superset of what Python means by it. **Source**: WHATWG Encoding standard."""

_CHECKED = frozenset({"cp932", "cp949", "gb18030", "big5hkscs", "euc_jp", "iso2022_jp"})
"""Encodings of several bytes a character: text in another one is hardly ever valid in them."""

_DEFAULTS = frozenset({"cp1252", "utf-8"})
"""What servers say of everything; a page that says anything else usually means it."""

_WIDE_SAMPLE = 512


def decode_page(content: bytes, declared: str | None) -> str:
    """Return the characters of a page; bytes that are none become U+FFFD.

    Args:
        content: the page.
        declared: the encoding that its server or container states.
    """
    for mark, name in _BOMS:
        if content.startswith(mark):
            return content[len(mark) :].decode(name, "replace")
    if not _is_other(content):
        text = _decode_checked(content, "utf-8")
        if text is not None:
            return text
    hints = [_known(hint) for hint in (declared, _stated_inside(content))]
    return _decode_hinted(content, [hint for hint in hints if hint is not None])


def _decode_hinted(content: bytes, hints: list[str]) -> str:
    wide = _wide_encoding(content)
    if wide is not None:
        return content.decode(wide, "replace")
    detected = _known(detect_encoding(content)) or "utf-8"
    for name in (*hints, detected):
        if name not in _CHECKED and name not in _DEFAULTS:
            return content.decode(name, "replace")
        text = _decode_checked(content, name) if name in _CHECKED else None
        if text is not None:
            return text
    return content.decode(detected, "replace")


def _decode_checked(content: bytes, name: str) -> str | None:
    """Return the text if ``content`` is valid, but for a last character that a crawler's size limit cut."""
    try:
        return content.decode(name)
    except UnicodeDecodeError as error:
        if error.start < len(content) - 4:
            return None
        return content[: error.start].decode(name, "replace")


def _is_other(content: bytes) -> bool:
    """Whether ``content``, though it may be valid UTF-8, is plainly in UTF-16 or has Japanese escapes."""
    escapes = b"\x1b" in content and (b"\x1b$" in content or b"\x1b(" in content)
    return escapes or _wide_encoding(content) is not None


def _wide_encoding(content: bytes) -> str | None:
    """Return UTF-16 in the byte order in which markup leaves every other byte zero."""
    head = content[:_WIDE_SAMPLE]
    if b"\0" not in head or len(head) < 8:
        return None
    even, odd = head[::2].count(0) * 2 / len(head), head[1::2].count(0) * 2 / len(head)
    if max(even, odd) < 0.4 or min(even, odd) > 0.1:
        return None
    return "utf-16-be" if even > odd else "utf-16-le"


def _stated_inside(content: bytes) -> str | None:
    found = _META.search(content, 0, _META_BYTES)
    return found.group(1).decode("ascii") if found is not None else None


def _known(name: str | None) -> str | None:
    """Return Python's name of the encoding that browsers read by a label, or None for no label."""
    found = map_encoding_to_html5(name.strip(), fallback_utf8=False) if name else None
    if found is None or found.startswith("utf-16"):
        return None  # a page that could say so in ASCII is not in UTF-16
    return _WIDER.get(found, found)
