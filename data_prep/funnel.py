"""What became of a source's documents: how many came in, were dropped and why, were kept."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from data_prep.document import Document


class Funnel:
    """Counters of one source; bytes are UTF-8 bytes of text, or of the file where no text could be read."""

    def __init__(self) -> None:
        self.documents_in = 0
        self.bytes_in = 0
        self.dropped: Counter[str] = Counter()
        self.documents_kept = 0
        self.bytes_kept = 0

    def refuse(self, reason: str, size: int) -> None:
        """Count something of ``size`` bytes that did not become a document."""
        self.documents_in += 1
        self.bytes_in += size
        self.dropped[reason] += 1

    def drop(self, reason: str) -> None:
        """Count a document that a stage leaves out."""
        self.dropped[reason] += 1

    def entering(self, documents: Iterator[Document]) -> Iterator[Document]:
        """Count what a reader gives. A stage."""
        for document in documents:
            self.documents_in += 1
            self.bytes_in += len(document.utf8)
            yield document

    def leaving(self, documents: Iterator[Document]) -> Iterator[Document]:
        """Count what all stages kept. A stage."""
        for document in documents:
            self.documents_kept += 1
            self.bytes_kept += len(document.utf8)
            yield document

    def as_data(self) -> dict[str, Any]:
        """Return the counts as the manifest holds them."""
        return {
            "documents_in": self.documents_in,
            "bytes_in": self.bytes_in,
            "dropped": dict(sorted(self.dropped.items())),
            "documents_kept": self.documents_kept,
            "bytes_kept": self.bytes_kept,
        }

    def describe_dropped(self) -> str:
        """Return the reasons in words, most frequent first."""
        return ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.most_common()) or "none"
