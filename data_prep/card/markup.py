"""Pieces of HTML. What comes from documents is hostile: only ``Html`` goes into the page as it is."""

import html
import re
from collections.abc import Iterable, Sequence

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\U000e0000-\U000e007f]"
)
"""Controls of terminals and of writing direction, tags, half characters: nobody sees them, and they change the rest."""


DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


class Html(str):
    """Markup that this package wrote."""

    __slots__ = ()


def visible(text: str) -> str:
    """Return ``text`` with every control character but tab and line feed written out."""
    return _HIDDEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)


def escaped(text: str) -> Html:
    """Return ``text`` as markup that shows it."""
    return text if isinstance(text, Html) else Html(html.escape(visible(text), quote=True))


def element(tag: str, *content: str, **attributes: str | None) -> Html:
    """Return an element; text in it is escaped, ``class_`` means ``class``, attributes that are None are left out."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{tag}{written}>{joined(content)}</{tag}>")


def joined(parts: Iterable[str]) -> Html:
    """Return parts one after the other; text among them is escaped."""
    return Html("".join(map(escaped, parts)))


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> Html:
    """Return a table that scrolls by itself where it is too wide.

    Args:
        caption: says what it shows; read out by screen readers, and shown above.
        head: titles of the columns.
        rows: cells.
        text_columns: how many of the first columns are text; the others are numbers, set to the right.
    """
    kinds = ["text" if place < text_columns else "number" for place in range(len(head))]
    first = joined(element("th", cell, scope="col", class_=kind) for cell, kind in zip(head, kinds, strict=True))
    body = joined(
        element("tr", *(element("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)))
        for row in rows
    )
    inside = joined(
        [element("caption", caption), element("thead", element("tr", first)), element("tbody", body)],
    )
    return element("div", element("table", inside), class_="scroll", tabindex="0", role="group", aria_label=caption)


def details(summary: str, *content: str) -> Html:
    """Return content that is folded away until it is asked for."""
    return element("details", element("summary", summary), *content)


def code(name: str) -> Html:
    """Return a name of the program's, which may be broken after a dot or underscore."""
    return element("code", Html(re.sub(r"([._/])", r"\1<wbr>", escaped(name))))


def whole(number: int) -> str:
    """Return a count."""
    return f"{number:,}"


def size(number_of_bytes: float) -> str:
    """Return a size in decimal units, to three digits."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number_of_bytes >= 0.9995 * limit:
            number = number_of_bytes / limit
            return f"{number:,.{2 if number < 9.995 else 1 if number < 99.95 else 0}f} {unit}"
    return f"{number_of_bytes:.0f} B"


def share(part: float, of: float) -> str:
    """Return a part in per cent."""
    if not of:
        return DASH
    percent = 100 * part / of
    if part and percent < 0.01:
        return "< 0.01 %"
    return f"{percent:.2f} %" if percent < 10 else f"{percent:.1f} %"
