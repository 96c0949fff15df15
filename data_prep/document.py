"""A document, and the contract of every stage: documents of a shard in, documents out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from data_prep.hashing import text_digest


@dataclass(frozen=True)
class Page:
    """Undecoded HTML, whose text is still to be found."""

    content: bytes
    declared_encoding: str | None = None
    """What the server or the file's container said; the bytes may disagree."""


@dataclass(frozen=True)
class Document:
    """A text and where it came from."""

    text: str
    """Empty where there is a ``page`` that no stage has looked into."""

    path: str
    """File, folder or dataset name; ``{stdlib}`` and ``{site-packages}`` stand for those folders."""

    record: int = 0
    """Line of a JSON Lines file (from 1), row of a table (from 0), byte of a WARC record; 0 for a whole file."""

    offset: int | None = None
    """Byte at which the record begins in the file, compressed as it is; unset for a whole file or a row of a table."""

    url: str | None = None
    page: Page | None = None
    language: str | None = None
    """ISO 639 code, once a stage has identified it."""

    @cached_property
    def utf8(self) -> bytes:
        """The text as it is counted and hashed."""
        return self.text.encode()

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that two documents share only if their texts are equal."""
        return text_digest(self.utf8)

    def with_text(self, text: str) -> "Document":
        """Return the document with another text and no page."""
        return Document(text, self.path, self.record, self.offset, self.url, language=self.language)

    def with_page(self, page: Page) -> "Document":
        """Return the document with a page whose text is still to be found."""
        return Document("", self.path, self.record, self.offset, self.url, page, self.language)

    def with_language(self, language: str) -> "Document":
        """Return the document with its language; what is known of the text stays known."""
        known = Document(self.text, self.path, self.record, self.offset, self.url, self.page, language)
        vars(known).update({name: vars(self)[name] for name in ("utf8", "digest") if name in vars(self)})
        return known


Stage = Callable[[Iterator[Document]], Iterator[Document]]
"""A stage passes documents on in order; what it drops it tells the shard's account, with the rule and its numbers.

It is made by a function ``xyz_stage(section, place, account)`` of its config section, the ``Place`` and the
``Account``; it knows nothing of who runs it, and what it does may depend on the documents alone, not on the place.
"""


@dataclass(frozen=True)
class Place:
    """Which part of the work this is: task ``rank`` of ``world_size``."""

    rank: int
    world_size: int
