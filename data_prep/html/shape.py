"""What a page would cost to parse, told from its tags in a few microseconds, before anything parses it.

The parser is compiled code that nothing can interrupt, and its cost is not linear: finding the main content takes
each element's ancestors into account, and a tag's attributes are compared with each other.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from data_prep.compiled import compiled

_SLOTS = 4096
_MASK = np.uint64(_SLOTS - 1)  # an unsigned number stays one only beside another
_NESTS, _ALONE, _RAW, _FOREIGN = 0, 1, 2, 3
_ALONE_NAMES = (
    *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"),
    # Those whose end may be left out close each other: they nest only inside elements that are counted.
    *("p", "li", "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot", "colgroup", "option", "optgroup", "rp", "rt"),
)
_RAW_NAMES = ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes")
_FOREIGN_NAMES = ("svg", "math")
_FNV_OFFSET, _FNV_PRIME = np.uint64(14695981039346656037), np.uint64(1099511628211)

# Seconds on one core of the machine on which they were measured, for resiliparse 2.0.
_PER_BYTE, _PER_TAG, _PER_ATTRIBUTE, _PER_ATTRIBUTE_PAIR = 1e-8, 1.5e-6, 3e-7, 2.6e-9
_PER_ANCESTOR_MAIN, _PER_ANCESTOR_ALL = 7e-8, 1e-9


@dataclass(frozen=True)
class PageShape:
    """The shape of a page, as far as it was read: no further than to ``max_nesting`` open elements."""

    size: int
    """Bytes."""

    tags: int
    """Characters ``<``: start tags, end tags and what is neither."""

    elements: int
    """Start tags, of which each becomes an element in memory."""

    attributes: int
    nesting: int
    """Most elements open at once, of those that nest."""

    attribute_pairs: int
    """Squares of each tag's number of attributes, added up."""

    ancestors: int
    """For each tag the elements open around it, added up."""

    most_ancestors: int
    """The same if every element stays open until its own end tag comes: no arrangement of tags nests deeper."""

    def seconds(self, *, main_content: bool, most: bool = False) -> float:
        """Return the CPU time that parsing the page is likely to take, or the ``most`` it may take.

        Args:
            main_content: whether the main content is to be found.
            most: take the page to nest as deep as its tags allow.
        """
        per_ancestor = _PER_ANCESTOR_MAIN if main_content else _PER_ANCESTOR_ALL
        linear = _PER_BYTE * self.size + _PER_TAG * self.tags + _PER_ATTRIBUTE * self.attributes
        ancestors = self.most_ancestors if most else self.ancestors
        return linear + _PER_ATTRIBUTE_PAIR * self.attribute_pairs + per_ancestor * ancestors


def most_seconds(size: int, tags: int, *, main_content: bool) -> float:
    """Return the CPU time that no page of ``size`` bytes with ``tags`` characters ``<`` exceeds, however it nests."""
    attributes = size // 2  # a character and a space each, all of them in one tag
    return PageShape(size, tags, tags, attributes, tags, attributes**2, 0, tags**2 // 2).seconds(
        main_content=main_content, most=True
    )


def page_shape(content: bytes, max_nesting: int) -> PageShape:
    """Return the shape of a page in an encoding that has ASCII in it."""
    names, kinds = _name_table()
    page = np.frombuffer(content, np.uint8)
    return PageShape(len(content), *(int(number) for number in _scan(page, max_nesting, names, kinds)))


def visible_bytes(content: bytes) -> int:
    """Return how many bytes of a page are text that may be seen: no tags, scripts, styles, comments, or spaces."""
    names, kinds = _name_table()
    return int(_visible(np.frombuffer(content, np.uint8), names, kinds))


@cache
def _name_table() -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8]]:
    """Return the hash of the name in each slot, and what kind of element it is."""
    names, kinds = np.zeros(_SLOTS, np.uint64), np.zeros(_SLOTS, np.uint8)
    for kind, group in ((_ALONE, _ALONE_NAMES), (_RAW, _RAW_NAMES), (_FOREIGN, _FOREIGN_NAMES)):
        for name in group:
            value = int(_FNV_OFFSET)
            for byte in name.encode():
                value = ((value ^ byte) * int(_FNV_PRIME)) % 2**64
            slot = value % _SLOTS
            assert names[slot] == 0, f"two names share a slot, one is {name}"
            names[slot], kinds[slot] = value, kind
    return names, kinds


@compiled
def _is_space(byte):  # type: ignore[no-untyped-def] # numba infers them
    return byte == 32 or (9 <= byte <= 13 and byte != 11)


@compiled
def _ends_attribute_name(byte):  # type: ignore[no-untyped-def] # numba infers them
    return byte in (62, 47, 61) or _is_space(byte)


@compiled
def _lower(byte):  # type: ignore[no-untyped-def] # numba infers them
    return byte + 32 if 65 <= byte <= 90 else byte


@compiled
def _read_name(page, place):  # type: ignore[no-untyped-def] # numba infers them
    """Return hash and end of the tag name that begins at ``place``."""
    value = _FNV_OFFSET
    while place < page.size:
        byte = page[place]
        if byte in (62, 47) or _is_space(byte):  # > /
            break
        value = (value ^ np.uint64(_lower(byte))) * _FNV_PRIME
        place += 1
    return value, place


@compiled
def _read_attributes(page, place):  # type: ignore[no-untyped-def] # numba infers them
    """Return number of attributes, whether the tag closes itself, and its end, as a browser's tokenizer does."""
    count = 0
    size = page.size
    while place < size:
        byte = page[place]
        if byte == 62:  # >
            return count, place > 0 and page[place - 1] == 47, place + 1
        if byte == 47 or _is_space(byte):
            place += 1
            continue
        count += 1
        place += 1  # a name may begin with =
        while place < size and not _ends_attribute_name(page[place]):
            place += 1
        while place < size and _is_space(page[place]):
            place += 1
        if place < size and page[place] == 61:  # =
            place = _skip_value(page, place + 1)
    return count, False, size


@compiled
def _skip_value(page, place):  # type: ignore[no-untyped-def] # numba infers them
    """Return the end of the attribute value that begins at or behind ``place``."""
    size = page.size
    while place < size and _is_space(page[place]):
        place += 1
    if place < size and page[place] in (34, 39):  # quotes
        quote = page[place]
        place += 1
        while place < size and page[place] != quote:
            place += 1
        return place + 1
    while place < size and page[place] != 62 and not _is_space(page[place]):
        place += 1
    return place


@compiled
def _next_tag(page, place):  # type: ignore[no-untyped-def] # numba infers them
    while place < page.size and page[place] != 60:  # <
        place += 1
    return place


@compiled
def _is_comment(page, place):  # type: ignore[no-untyped-def] # numba infers them
    return place + 3 < page.size and page[place + 2] == 45 and page[place + 3] == 45


@compiled
def _end_of_comment(page, place):  # type: ignore[no-untyped-def] # numba infers them
    """Return the end of the comment whose ``<!--`` ends before ``place``; the page's end if it has none."""
    while place + 2 < page.size:
        if page[place] == 45 and page[place + 1] == 45 and page[place + 2] == 62:
            return place + 3
        place += 1
    return page.size


@compiled
def _end_of_raw(page, place, name):  # type: ignore[no-untyped-def] # numba infers them
    """Return where the end tag ``name`` begins, at or behind ``place``; the page's end if there is none."""
    while place + 1 < page.size:
        if page[place] == 60 and page[place + 1] == 47:
            found, _ = _read_name(page, place + 2)
            if found == name:
                return place
        place += 1
    return page.size


@compiled
def _scan(page, max_nesting, names, kinds):  # type: ignore[no-untyped-def] # noqa: C901, PLR0912, PLR0915 - see below
    """Return the numbers of a PageShape behind its size.

    One function, since each array that is handed to another costs 10 ns a tag to count its references.
    ``most_open`` counts elements as if only their own end tags closed them, and neither comments nor scripts hid tags.
    """
    stack = np.zeros(max_nesting, np.uint64)
    opens, most_opens = np.zeros(_SLOTS, np.int32), np.zeros(_SLOTS, np.int32)
    tags = elements = attributes = depth = nesting = most_open = foreign = visible_from = place = 0
    pairs = ancestors = most_ancestors = 0
    while nesting <= max_nesting:
        place = _next_tag(page, place)
        if place + 1 >= page.size:
            break
        following, hidden = page[place + 1], place < visible_from
        tags += 1
        if following == 47:  # an end tag
            value, place = _read_name(page, place + 2)
            slot = np.int64(value & _MASK)
            if most_opens[slot] > 0:
                most_opens[slot] -= 1
                most_open -= 1
                foreign -= names[slot] == value and kinds[slot] == _FOREIGN
            if not hidden and opens[slot] > 0:
                closed = ~value
                while depth > 0 and closed != value:  # with it closes all that is open inside
                    depth -= 1
                    closed = stack[depth]
                    opens[np.int64(closed & _MASK)] -= 1
        elif 97 <= _lower(following) <= 122:
            value, place = _read_name(page, place + 1)
            slot = np.int64(value & _MASK)
            elements += 1
            kind, is_closed = kinds[slot] if names[slot] == value else _NESTS, False
            if not hidden:
                count, is_closed, place = _read_attributes(page, place)
                attributes += count
                pairs += count * count
                ancestors += depth
            most_ancestors += most_open
            if kind == _ALONE or (is_closed and foreign > 0):
                continue
            most_opens[slot] += 1
            most_open += 1
            foreign += kind == _FOREIGN
            if hidden:
                continue
            if kind == _RAW and foreign == 0:  # in SVG the same names hold markup
                visible_from = _end_of_raw(page, place, value)
            if depth < max_nesting:
                stack[depth] = value
                opens[slot] += 1
            depth += 1
            nesting = max(nesting, depth)
        elif following == 33 and not hidden and _is_comment(page, place):
            visible_from = _end_of_comment(page, place + 2)
            place += 4
        else:
            place += 1
    return tags, elements, attributes, nesting, pairs, ancestors, most_ancestors


@compiled
def _visible(page, names, kinds):  # type: ignore[no-untyped-def] # numba infers them
    count = place = 0
    while place < page.size:
        byte = page[place]
        if byte != 60:  # <
            count += byte > 32
            place += 1
            continue
        following = page[place + 1] if place + 1 < page.size else 0
        if following == 33 and _is_comment(page, place):
            place = _end_of_comment(page, place + 2)
        elif following in (47, 33):
            while place < page.size and page[place] != 62:
                place += 1
            place += 1
        elif 97 <= _lower(following) <= 122:
            value, place = _read_name(page, place + 1)
            _, _, place = _read_attributes(page, place)
            slot = np.int64(value & _MASK)
            if names[slot] == value and kinds[slot] == _RAW:
                place = _end_of_raw(page, place, value)
        else:
            count += 1
            place += 1
    return count
