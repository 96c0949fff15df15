"""A document, and the contract of every stage: it takes documents and yields documents."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from data_prep.hashing import text_digest


@dataclass(frozen=True)
class Document:
    """A text and where it came from."""

    text: str
    path: str
    """File, folder or dataset name; ``{stdlib}`` and ``{site-packages}`` stand for those folders."""

    record: int = 0
    """Line of a JSON Lines file (from 1) or row of a dataset (from 0); 0 for a whole file."""

    url: str | None = None

    @cached_property
    def utf8(self) -> bytes:
        """The text as it is counted and hashed."""
        return self.text.encode()

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that two documents share only if their texts are equal."""
        return text_digest(self.utf8)


Stage = Callable[[Iterator[Document]], Iterator[Document]]
"""A stage passes documents on in order; what it drops it counts, by reason, in the source's funnel."""
