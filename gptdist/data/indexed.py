"""Token files that other programs wrote: ``.bin`` and ``.idx`` of Megatron-LM, Megatron-DeepSpeed or GPT-NeoX.

What may differ from a shard of ours (``gptdist.data.shards``): any integer type, documents of several sequences, empty
ones, and no end-of-document.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np

from gptdist.data.shards import HEADER, LENGTH_BYTES, MAGIC, OFFSET_BYTES, VERSION
from gptdist.errors import DataError

_TYPES = MappingProxyType({1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"})
"""NumPy's names of the integer types, by the format's codes."""

_RESTORE = "restore it, or make it again with the program that wrote it"


class IndexedFile:
    """One pair of files, opened and checked but for the tokens themselves.

    Args:
        prefix: path without ``.bin`` and ``.idx``.

    Raises:
        DataError: a file is missing, is no token index, or the two do not fit each other.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.bin_path, self.idx_path = Path(f"{prefix}.bin"), Path(f"{prefix}.idx")
        code, self._sequences, borders = self._header()
        if code not in _TYPES:
            raise DataError(f"{self.idx_path}: dtype code {code} is no type of integers; it holds no token ids")
        self.dtype = np.dtype(_TYPES[code])
        self.num_documents = borders - 1
        expected = HEADER.size + self._sequences * (LENGTH_BYTES + OFFSET_BYTES) + borders * OFFSET_BYTES
        if self.idx_path.stat().st_size != expected:
            raise DataError(
                f"{self.idx_path}: {self.idx_path.stat().st_size} bytes, {self._sequences} sequences and {borders} "
                f"document borders make {expected}; {_RESTORE}"
            )
        self._check_sequences()
        self._check_borders()
        size = self._size_of(self.bin_path)
        if size != self.num_tokens * self.dtype.itemsize:
            raise DataError(
                f"{self.bin_path}: {size} bytes, its index says {self.num_tokens * self.dtype.itemsize} "
                f"({self.num_tokens} tokens of {self.dtype.name}); {_RESTORE}"
            )

    @cached_property
    def num_tokens(self) -> int:
        """Tokens of all documents."""
        return int(self._lengths.sum(dtype=np.int64))

    @cached_property
    def document_offsets(self) -> np.ndarray:
        """First token of each document, and ``num_tokens``: int64[num_documents + 1]."""
        ends = np.zeros(self._sequences + 1, dtype=np.int64)
        np.cumsum(self._lengths, dtype=np.int64, out=ends[1:])
        return ends[self._borders]

    def read(self, first_document: int, end_document: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of documents ``first_document`` … ``end_document`` - 1, int64, and how many each has."""
        offsets = self.document_offsets[first_document : end_document + 1]
        return np.array(self._tokens[offsets[0] : offsets[-1]], dtype=np.int64), np.diff(offsets)

    def last_tokens(self, first_document: int, end_document: int) -> np.ndarray:
        """Return the last id of each document that has one."""
        offsets = self.document_offsets[first_document : end_document + 1]
        return np.array(self._tokens[offsets[1:][np.diff(offsets) > 0] - 1], dtype=np.int64)

    def cuts(self, begin: int, end: int, most_tokens: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of documents that make up ``begin`` … ``end`` - 1, each with ``most_tokens`` at most, or one."""
        offsets = self.document_offsets
        while begin < end:
            fitting = int(np.searchsorted(offsets, offsets[begin] + most_tokens, side="right")) - 1
            cut = min(end, max(fitting, begin + 1))
            yield begin, cut
            begin = cut

    @cached_property
    def _tokens(self) -> np.ndarray:
        return np.memmap(self.bin_path, dtype=self.dtype, mode="r", shape=(self.num_tokens,))

    @cached_property
    def _lengths(self) -> np.ndarray:
        return np.memmap(self.idx_path, "<i4", "r", HEADER.size, (self._sequences,))

    @cached_property
    def _borders(self) -> np.ndarray:
        start = HEADER.size + self._sequences * (LENGTH_BYTES + OFFSET_BYTES)
        return np.memmap(self.idx_path, "<i8", "r", start, (self.num_documents + 1,))

    def _header(self) -> tuple[int, int, int]:
        self._size_of(self.idx_path)
        with self.idx_path.open("rb") as file:
            content = file.read(HEADER.size)
        if len(content) != HEADER.size or not content.startswith(MAGIC):
            raise DataError(f"{self.idx_path}: begins with {content[:9]!r}, which is no token index; {_RESTORE}")
        _, version, code, sequences, borders = HEADER.unpack(content)
        if version != VERSION:
            raise DataError(f"{self.idx_path}: version {version} of the format, known is {VERSION}; {_RESTORE}")
        if sequences < 1 or borders < 2:
            raise DataError(f"{self.idx_path}: {sequences} sequences and {borders} document borders; nothing is in it")
        return code, sequences, borders

    def _check_sequences(self) -> None:
        lengths = self._lengths
        if int(lengths.min()) < 0:
            raise DataError(f"{self.idx_path}: sequence {int(np.argmin(lengths))} has a length below 0; {_RESTORE}")
        start = HEADER.size + self._sequences * LENGTH_BYTES
        found = np.memmap(self.idx_path, "<i8", "r", start, (self._sequences,))
        expected = np.cumsum(lengths, dtype=np.int64)
        expected -= lengths
        expected *= self.dtype.itemsize
        wrong = np.flatnonzero(found != expected)
        if wrong.size:
            first = int(wrong[0])
            raise DataError(
                f"{self.idx_path}: sequence {first} begins at byte {int(found[first])}, the lengths before it make "
                f"{int(expected[first])}; {_RESTORE}"
            )

    def _check_borders(self) -> None:
        borders = self._borders
        if int(borders[0]) != 0 or int(borders[-1]) != self._sequences or bool((np.diff(borders) < 0).any()):
            raise DataError(
                f"{self.idx_path}: document borders go from {int(borders[0])} to {int(borders[-1])} and must rise from "
                f"0 to {self._sequences}, the number of sequences; {_RESTORE}"
            )

    def _size_of(self, path: Path) -> int:
        try:
            return path.stat().st_size
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}); name the path without '.bin' and '.idx'"
            ) from None
