"""Texts that no stage has to look into, in columns: from a reader to the kept documents without an object each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from data_prep.document import Document
from data_prep.hashing import text_digest

_BATCH_BYTES = 1 << 22
_BATCH_TEXTS = 4096


@dataclass(frozen=True)
class Texts:
    """Consecutive texts of one file, whole and as they are kept."""

    path: str
    texts: Any
    """Arrow ``large_string``."""

    records: Sequence[int]
    offsets: Sequence[int] | None
    urls: Sequence[str | None] | None
    digests: bytes
    """16 bytes each."""

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def text_bytes(self) -> np.ndarray:
        """Bytes of each text, int64."""
        return np.diff(np.frombuffer(self.texts.buffers()[1], dtype=np.int64))

    def document(self, index: int) -> Document:
        """Return one of them by itself."""
        offset = None if self.offsets is None else self.offsets[index]
        url = None if self.urls is None else self.urls[index]
        return Document(self.texts[index].as_py(), self.path, self.records[index], offset, url)


class TextsBuilder:
    """Collect texts that need no look.

    Args:
        path: of the file.
        min_characters: without white space at both ends, of a text that is kept whatever it says.
        offsets: whether records begin at a byte.
        urls: whether they have addresses.
    """

    def __init__(self, path: str, min_characters: int, *, offsets: bool, urls: bool) -> None:
        self._path, self._min_characters = path, min_characters
        self._has_offsets, self._has_urls = offsets, urls
        self._clear()

    def take(self, text: str, record: int, offset: int | None, url: str | None) -> bool:
        """Add a text; False, and nothing is added, where it is short, or has what text does not have."""
        if "\0" in text or len(text.strip()) < self._min_characters:
            return False
        try:
            utf8 = text.encode()
        except UnicodeEncodeError:  # a lone surrogate
            return False
        self._texts.append(utf8)
        self._size += len(utf8)
        self._records.append(record)
        if offset is not None:
            self._offsets.append(offset)
        if self._has_urls:
            self._urls.append(url)
        return True

    @property
    def is_full(self) -> bool:
        """Whether it is time to ``flush``."""
        return self._size >= _BATCH_BYTES or len(self._texts) >= _BATCH_TEXTS

    def flush(self) -> Iterator[Texts]:
        """Yield what was collected, if anything was."""
        if not self._texts:
            return
        borders = np.zeros(len(self._texts) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, self._texts), dtype=np.int64, count=len(self._texts)), out=borders[1:])
        buffers = [None, pa.py_buffer(borders), pa.py_buffer(b"".join(self._texts))]
        texts = Texts(
            self._path,
            pa.Array.from_buffers(pa.large_string(), len(self._texts), buffers),
            self._records,
            self._offsets if self._has_offsets else None,
            self._urls if self._has_urls else None,
            b"".join(map(text_digest, self._texts)),
        )
        self._clear()
        yield texts

    def _clear(self) -> None:
        self._texts: list[bytes] = []
        self._size = 0
        self._records: list[int] = []
        self._offsets: list[int] = []
        self._urls: list[str | None] = []
