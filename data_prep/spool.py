"""Kept documents on disk between the first pass, which reads and filters, and the second, which tokenizes.

In memory stay 40 bytes a document: where it is, its place in the random order, and its split.
"""

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.document import Document
from data_prep.hashing import order_key, validation_place


@dataclass(frozen=True)
class Settings:
    """What decides a document's place and split."""

    seed: int
    validation_fraction: float


class Spool:
    """The kept documents of one source."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self._path = path
        self._settings = settings
        self._file = path.open("wb")
        self._end = 0
        self._offsets, self._text_bytes, self._origin_bytes = array("Q"), array("Q"), array("I")
        self._keys, self._validation = array("Q"), array("B")
        self.lowest_place = 1.0
        """The validation fraction above which a document would be validation."""

    def fill(self, documents: Iterator[Document]) -> None:
        """Write ``documents`` and close the file."""
        for document in documents:
            origin = json.dumps([document.path, document.record, document.url]).encode()
            self._file.write(document.utf8)
            self._file.write(origin)
            self._offsets.append(self._end)
            self._text_bytes.append(len(document.utf8))
            self._origin_bytes.append(len(origin))
            self._keys.append(order_key(self._settings.seed, document.digest))
            place = validation_place(document.digest)
            self._validation.append(place < self._settings.validation_fraction)
            self.lowest_place = min(self.lowest_place, place)
            self._end += len(document.utf8) + len(origin)
        self._file.close()

    def order(self, *, validation: bool) -> np.ndarray:
        """Return the numbers of one split's documents, shuffled by their keys."""
        numbers = np.flatnonzero(np.asarray(self._validation) == validation)
        return numbers[np.argsort(np.asarray(self._keys)[numbers], kind="stable")]

    def read(self, numbers: np.ndarray) -> Iterator[Document]:
        """Yield the documents of ``numbers``."""
        with self._path.open("rb") as file:
            for number in numbers.tolist():
                file.seek(self._offsets[number])
                text = file.read(self._text_bytes[number]).decode()
                path, record, url = json.loads(file.read(self._origin_bytes[number]))
                yield Document(text, path, record, url)

    def remove(self) -> None:
        """Delete the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)
