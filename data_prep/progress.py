"""What a preparation run says while it runs: lines that stay, and one that is rewritten where there is a terminal."""

import time
from collections.abc import Iterator
from typing import TextIO

from data_prep.document import Document

_EVERY_SECONDS = 0.2
_CLEAR = "\r\x1b[K"


class Progress:
    """Write to ``stream``; the rewritten line appears on a terminal only."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._stage = ""
        self._documents = self._bytes = self._total_bytes = 0
        self._started = self._shown = time.monotonic()

    def note(self, text: str) -> None:
        """Write a line that stays."""
        self._stream.write(f"{_CLEAR if self._is_terminal else ''}{text}\n")
        self._stream.flush()

    def begin(self, stage: str, total_bytes: int = 0) -> None:
        """Begin a stage; with ``total_bytes`` the line shows how much is done."""
        self._stage, self._total_bytes = stage, total_bytes
        self._documents = self._bytes = 0
        self._started = time.monotonic()

    def advance(self, documents: int, size: int) -> None:
        """Count what is done, and show it at most five times a second."""
        self._documents += documents
        self._bytes += size
        now = time.monotonic()
        if self._is_terminal and now - self._shown >= _EVERY_SECONDS:
            self._shown = now
            done = f" {min(100, 100 * self._bytes // self._total_bytes)} %" if self._total_bytes else ""
            speed = self._bytes / 1e6 / max(now - self._started, 1e-9)
            self._stream.write(
                f"{_CLEAR}{self._stage}{done}: {self._documents:,} documents, {self._bytes / 1e6:,.1f} MB, "
                f"{speed:,.1f} MB/s"
            )
            self._stream.flush()

    def end(self) -> None:
        """Remove the rewritten line."""
        if self._is_terminal:
            self._stream.write(_CLEAR)
            self._stream.flush()

    def watching(self, documents: Iterator[Document]) -> Iterator[Document]:
        """Count documents as they pass. A stage."""
        for document in documents:
            self.advance(1, len(document.utf8))
            yield document
