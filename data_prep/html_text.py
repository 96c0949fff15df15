"""The text of an HTML page, by the standard library: tags go, blocks become lines, menus stay.

Main-content extraction, which tells the article from the menu, is a matter for web-scale corpora and not done here.
"""

import re
from html.parser import HTMLParser

_SILENT = frozenset({"script", "style", "template", "noscript", "svg"})
_INLINE = frozenset(
    {"a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins", "kbd", "label"}
    | {"mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr"}
)
_SPACES = re.compile(r"[ \t\r\n\f]+")
_BLANK_LINES = re.compile(r"\n{3,}")


def html_text(page: str) -> str:
    """Return the visible text of ``page``."""
    parser = _TextParser()
    parser.feed(page)
    parser.close()
    return parser.text()


class _TextParser(HTMLParser):
    """Collect text; every tag that is not inline begins a new line, ``pre`` keeps its spaces."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._silent: list[str] = []
        self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where text is not shown, and where lines begin."""
        if tag in _SILENT:
            self._silent.append(tag)
        self._preformatted += tag == "pre"
        self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        """Undo what the start of the tag did; a stray end is ignored."""
        if tag in self._silent:
            del self._silent[self._silent.index(tag) :]
        self._preformatted -= tag == "pre" and self._preformatted > 0
        self._break(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Treat ``<br/>`` like ``<br>``, and ``<script/>`` as nothing."""
        self._break(tag)

    def handle_data(self, data: str) -> None:
        """Keep shown text."""
        if self._silent:
            return
        if not self._preformatted:
            data = _SPACES.sub(" ", data)
            if not self._parts or self._parts[-1].endswith("\n"):
                data = data.lstrip(" ")
        self._parts.append(data)

    def unknown_decl(self, data: str) -> None:
        """Ignore ``<![CDATA[``, which HTML does not have."""

    def parse_marked_section(self, i: int, report: int = 1) -> int:
        """Skip ``<![ … >``; the inherited method fails on a name that it does not know."""
        end = self.rawdata.find(">", i)
        return end + 1 if end >= 0 else -1

    def text(self) -> str:
        """Return what was collected, without spaces around lines and with at most one blank line in a row."""
        lines = "".join(self._parts).split("\n")
        return _BLANK_LINES.sub("\n\n", "\n".join(line.rstrip() for line in lines)).strip()

    def _break(self, tag: str) -> None:
        if tag not in _INLINE and not self._silent:
            self._parts.append("\n")
