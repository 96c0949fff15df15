"""The text of pages: the main content of HTML, its encoding detected, with limits of size, nesting and time."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from resiliparse.extract.html2text import extract_plain_text

from data_prep.account import Account
from data_prep.document import Document, Page, Place, Stage
from data_prep.html.encoding import decode_page
from data_prep.html.guarded import GuardedParser, PageLostError
from data_prep.html.shape import PageShape, most_seconds, page_shape, visible_bytes
from gptdist.config.prep_extract import ExtractSection

NAME = "extract"
_BOTH = MappingProxyType({"preserve_formatting": True, "list_bullets": True, "links": False, "form_fields": False})
_OPTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "main": MappingProxyType({**_BOTH, "main_content": True, "alt_texts": False, "comments": False}),
        "all": MappingProxyType({**_BOTH, "main_content": False, "alt_texts": True, "comments": True}),
    }
)
"""Of ``extract_plain_text``. The main content leaves out readers' comments and descriptions of pictures."""

_SKIPPED = (
    *("nav", "header", "footer", "aside", "form", "button", "select", "[aria-hidden=true]"),
    *(f"[role={role}]" for role in ("navigation", "banner", "contentinfo", "search", "complementary")),
)
_SECOND_OPTIONS: Mapping[str, Any] = MappingProxyType(
    {**_BOTH, "main_content": False, "alt_texts": False, "comments": False, "skip_elements": _SKIPPED}
)
"""Where the main content was missed: everything but what the page itself calls something else."""

_LEAST_SHARE = 0.2
"""Main content is missed if it is less than this share of the text that the second options find.

The rules go by depth and by class names: a list right below the body is a menu to them, and so is an article in an
element whose class sounds like one.
"""

_MARGIN = 10.0
"""A page that may take longer than this part of the limit is parsed where it can be ended."""


def extract_stage(section: ExtractSection, place: Place, account: Account) -> Stage:
    """Return the stage that finds the text of pages; documents that are text already pass through."""

    def stage(documents: Iterator[Document]) -> Iterator[Document]:
        extractor = _Extractor(section, account)
        try:
            for document in documents:
                found = document if document.page is None else extractor.extract(document, document.page)
                if found is not None:
                    yield found
        finally:
            extractor.close()

    return stage


class _Extractor:
    """Find the text of pages, one after the other."""

    def __init__(self, section: ExtractSection, account: Account) -> None:
        self._section = section
        self._account = account
        self._main = section.content == "main"
        self._options = dict(_OPTIONS[section.content])
        self._guarded = GuardedParser(section.max_page_seconds, self._options)

    def close(self) -> None:
        """End the process that parses risky pages."""
        self._guarded.close()

    def extract(self, document: Document, page: Page) -> Document | None:
        """Return the document with its page's text, or None where a limit or an empty page drops it."""
        limit, size = self._section.max_page_bytes, len(page.content)
        if size > limit:
            self._drop(document, "page_too_large", page_bytes=size, max_page_bytes=limit)
            return None
        characters = decode_page(page.content, page.declared_encoding)
        shape = self._shape(page.content, characters)
        if shape is not None and self._exceeds(document, shape):
            return None
        text = self._text(document, characters, shape)
        return None if text is None else self._accepted(document, text)

    def _shape(self, content: bytes, characters: str) -> PageShape | None:
        """Return the shape of a page, or None where its size and its number of tags show that it is harmless."""
        section = self._section
        tags = characters.count("<")
        seconds = most_seconds(len(content), tags, main_content=self._main)
        if tags <= min(section.max_nesting, section.max_page_tags) and seconds * _MARGIN <= section.max_page_seconds:
            return None
        return page_shape(characters.encode(), section.max_nesting)

    def _exceeds(self, document: Document, shape: PageShape) -> bool:
        """Whether a page is beyond a limit; if so it is dropped."""
        section, nodes = self._section, shape.elements + shape.attributes
        seconds = shape.seconds(main_content=self._main)
        if shape.nesting > section.max_nesting:
            self._drop(document, "page_too_deep", nesting_at_least=shape.nesting, max_nesting=section.max_nesting)
        elif nodes > section.max_page_tags:
            self._drop(document, "page_too_large", page_tags=nodes, max_page_tags=section.max_page_tags)
        elif seconds > section.max_page_seconds:
            limit = section.max_page_seconds
            self._drop(document, "page_too_slow", expected_seconds=round(seconds, 3), max_page_seconds=limit)
        else:
            return False
        return True

    def _text(self, document: Document, characters: str, shape: PageShape | None) -> str | None:
        limit = self._section.max_page_seconds
        if shape is None or shape.seconds(main_content=self._main, most=True) * _MARGIN <= limit:
            return self._with_second_look(characters, str(extract_plain_text(characters, **self._options)))
        try:
            return self._guarded.text(characters)
        except PageLostError as lost:
            if lost.is_slow:
                self._drop(document, "page_too_slow", max_page_seconds=limit)
            else:
                self._drop(document, "page_not_parsed", signal=lost.signal_name)
            return None

    def _with_second_look(self, characters: str, text: str) -> str:
        """Return ``text``, or more of the page where that is hardly any of it."""
        found = len(text.encode())
        if not self._main or found >= _LEAST_SHARE * visible_bytes(characters.encode("utf-8", "replace")):
            return text
        more = str(extract_plain_text(characters, **_SECOND_OPTIONS))
        if found >= _LEAST_SHARE * len(more.encode()):
            return text
        self._account.count("extract.main_content_missed")
        return more

    def _accepted(self, document: Document, text: str) -> Document | None:
        if "\0" in text:
            self._account.count("extract.nul", text.count("\0"))
            text = text.replace("\0", "")
        if "\ufffd" in text:
            self._account.count("extract.pages_with_replacement_characters")
        if not text or text.isspace():
            self._drop(document, "no_text", page_bytes=len(document.page.content) if document.page else 0)
            return None
        return document.with_text(text)

    def _drop(self, document: Document, rule: str, **numbers: float | str) -> None:
        self._account.drop(document, NAME, rule, **numbers)
