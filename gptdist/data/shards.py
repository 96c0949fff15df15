"""Token shards: Megatron's ``.bin`` and ``.idx``, written as a stream and read through a memory map.

``.bin``: the tokens of all documents, each document's end-of-document token included; no header.
``.idx``, little endian: magic (9 bytes), u64 version, u8 dtype code, u64 sequences S, u64 document borders D, then
int32[S] tokens of each sequence, int64[S] its byte offset in ``.bin``, int64[D] first sequence of each document.
One document is one sequence here, so D = S + 1 and the borders are 0 … S. Where best-fit packing cut a document, each
piece is a sequence.

**Source** of the format: ``megatron.core.datasets.indexed_dataset``.
"""

import hashlib
import struct
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np

from gptdist.durable import partial_path, publish
from gptdist.errors import DataError

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
LENGTH_BYTES, OFFSET_BYTES = 4, 8
CODES: Mapping[np.dtype, int] = MappingProxyType(
    {np.dtype(np.uint8): 1, np.dtype(np.int32): 4, np.dtype(np.int64): 5, np.dtype(np.uint16): 8}
)
"""Token dtypes and their codes; other codes of the format cannot hold token ids sensibly."""

LARGEST_UINT16_VOCAB = 65_535
_LONGEST_DOCUMENT = 2**31 - 1
_REBUILD = "prepare the data again"


def token_dtype(vocab_size: int) -> np.dtype:
    """Return the smallest dtype for ids below ``vocab_size``; readers take it from the header, never from a size."""
    return np.dtype(np.uint16 if vocab_size <= LARGEST_UINT16_VOCAB else np.int32)


def index_bytes(documents: int) -> int:
    """Return the size of an ``.idx`` file of ``documents`` documents."""
    return HEADER.size + documents * (LENGTH_BYTES + OFFSET_BYTES) + (documents + 1) * OFFSET_BYTES


@dataclass(frozen=True)
class WrittenShard:
    """What a finished shard is known by."""

    tokens: int
    documents: int
    bin_bytes: int
    bin_sha256: str
    idx_sha256: str


class ShardWriter:
    """Write one shard; ``close`` gives both files their names, leaving the ``with`` block by an error neither.

    Args:
        folder: where; it exists.
        name: file name without its ending.
        dtype: of the tokens on disk.
    """

    def __init__(self, folder: Path, name: str, dtype: np.dtype) -> None:
        self._bin_path, self._idx_path = folder / f"{name}.bin", folder / f"{name}.idx"
        self._dtype = np.dtype(dtype)
        self._limit = int(np.iinfo(self._dtype).max)
        self._lengths: list[np.ndarray] = []
        self._hash = hashlib.sha256()
        self._file = partial_path(self._bin_path).open("wb")
        self.num_tokens = 0
        self.num_documents = 0

    def append(self, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Add documents.

        Args:
            tokens: ids of all of them, one after the other, ends of documents included.
            lengths: how many of ``tokens`` each document has.

        Raises:
            DataError: an id does not fit the dtype, a document is empty or too long, or the lengths do not add up to
                the tokens.
        """
        if lengths.size and int(lengths.max()) > _LONGEST_DOCUMENT:
            raise DataError(
                f"{self._bin_path}: a document of {int(lengths.max())} tokens, the index holds up to "
                f"{_LONGEST_DOCUMENT}; split it, or filter it out"
            )
        if tokens.size and (int(tokens.min()) < 0 or int(tokens.max()) > self._limit):
            raise DataError(
                f"{self._bin_path}: token ids {int(tokens.min())} … {int(tokens.max())} do not fit {self._dtype.name}; "
                "the tokenizer gives ids outside its own vocab_size, use another"
            )
        if int(lengths.sum()) != tokens.size or (lengths.size and int(lengths.min()) < 1):
            raise DataError(
                f"{self._bin_path}: document lengths add up to {int(lengths.sum())}, there are {tokens.size} tokens, "
                "and none may be empty; pass the length of every document"
            )
        content = np.ascontiguousarray(tokens, dtype=self._dtype).view(np.uint8).data
        self._file.write(content)
        self._hash.update(content)
        self._lengths.append(lengths.astype(np.int32))
        self.num_tokens += int(tokens.size)
        self.num_documents += int(lengths.size)

    def close(self) -> WrittenShard:
        """Write the index, name both files, and return what they are known by."""
        self._file.close()
        index = self._index()
        partial_path(self._idx_path).write_bytes(index)
        publish(self._bin_path)
        publish(self._idx_path)
        return WrittenShard(
            tokens=self.num_tokens,
            documents=self.num_documents,
            bin_bytes=self.num_tokens * self._dtype.itemsize,
            bin_sha256=self._hash.hexdigest(),
            idx_sha256=hashlib.sha256(index).hexdigest(),
        )

    def discard(self) -> None:
        """Remove what was written; nothing happens after ``close``."""
        self._file.close()
        partial_path(self._bin_path).unlink(missing_ok=True)
        partial_path(self._idx_path).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def _index(self) -> bytes:
        lengths = np.concatenate([np.empty(0, np.int32), *self._lengths])
        offsets = np.zeros(lengths.size, dtype="<i8")
        np.cumsum(lengths[:-1], out=offsets[1:], dtype=np.int64)
        offsets *= self._dtype.itemsize
        borders = np.arange(lengths.size + 1, dtype="<i8")
        header = HEADER.pack(MAGIC, VERSION, CODES[self._dtype], lengths.size, borders.size)
        return b"".join((header, lengths.astype("<i4").tobytes(), offsets.tobytes(), borders.tobytes()))


class TokenShard:
    """Read one shard. Opening looks at the header and the sizes only; tokens and index are mapped when first used.

    Raises:
        DataError: a file is missing, is no such file, is only partly written, or its size is not what it says.
    """

    def __init__(self, stem: Path) -> None:
        """Open ``stem.bin`` and ``stem.idx``."""
        self.bin_path, self.idx_path = stem.with_name(stem.name + ".bin"), stem.with_name(stem.name + ".idx")
        header = self._header()
        magic, version, code, sequences, borders = header
        by_code = {number: dtype for dtype, number in CODES.items()}
        if magic != MAGIC or version != VERSION or code not in by_code:
            raise DataError(
                f"{self.idx_path}: header {magic!r}, version {version}, dtype code {code} is no token index; {_REBUILD}"
            )
        if borders != sequences + 1 or sequences == 0:
            raise DataError(
                f"{self.idx_path}: {sequences} sequences and {borders} document borders, expected one sequence "
                f"a document and at least one; {_REBUILD}"
            )
        self.dtype: np.dtype = by_code[code]
        self.num_documents = int(sequences)
        self._expect_size(self.idx_path, index_bytes(self.num_documents))
        last = self.num_documents - 1
        self.num_tokens = int(self.byte_offsets[last]) // self.dtype.itemsize + int(self.lengths[last])
        self._expect_size(self.bin_path, self.num_tokens * self.dtype.itemsize)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each document, int32[num_documents], mapped."""
        return self._mapped("<i4", HEADER.size, self.num_documents)

    @cached_property
    def byte_offsets(self) -> np.ndarray:
        """Where each document begins in ``.bin``, int64[num_documents], mapped."""
        return self._mapped("<i8", HEADER.size + self.num_documents * LENGTH_BYTES, self.num_documents)

    @cached_property
    def document_borders(self) -> np.ndarray:
        """First sequence of each document and the number of sequences, int64[num_documents + 1], mapped."""
        start = HEADER.size + self.num_documents * (LENGTH_BYTES + OFFSET_BYTES)
        return self._mapped("<i8", start, self.num_documents + 1)

    @cached_property
    def document_offsets(self) -> np.ndarray:
        """First token of each document and ``num_tokens``, int64[num_documents + 1]; a copy of the whole index."""
        offsets = np.empty(self.num_documents + 1, dtype=np.int64)
        np.floor_divide(self.byte_offsets, self.dtype.itemsize, out=offsets[:-1])
        offsets[-1] = self.num_tokens
        return offsets

    @cached_property
    def _tokens(self) -> np.ndarray:
        return np.memmap(self.bin_path, dtype=self.dtype.newbyteorder("<"), mode="r", shape=(self.num_tokens,))

    def read(self, start: int, count: int) -> np.ndarray:
        """Return a copy of ``count`` tokens from ``start`` on, in the shard's dtype.

        Raises:
            DataError: the range is not inside the shard.
        """
        if start < 0 or count < 0 or start + count > self.num_tokens:
            raise DataError(
                f"{self.bin_path}: tokens {start} … {start + count} asked for, it has {self.num_tokens}; "
                "ask for a range inside"
            )
        # A copy: a view would point into the map after its file is closed.
        return np.array(self._tokens[start : start + count], dtype=self.dtype)

    def last_tokens(self, begin: int = 0, end: int | None = None) -> np.ndarray:
        """Return the last token of documents ``begin`` … ``end`` - 1: end-of-document, or the document was cut here."""
        first = self.byte_offsets[begin:end] // self.dtype.itemsize
        return np.array(self._tokens[first + self.lengths[begin:end] - 1])

    def document_at(self, token: int) -> int:
        """Return the document that holds ``token``, by bisection of the map: nothing else is read."""
        return bisect_right(self.byte_offsets, token * self.dtype.itemsize) - 1

    def document_range(self, document: int) -> tuple[int, int]:
        """Return the first token of a document and the one after its last.

        Raises:
            DataError: there is no such document.
        """
        if not 0 <= document < self.num_documents:
            raise DataError(
                f"{self.idx_path}: document {document} asked for, it has {self.num_documents}; take one of 0 … "
                f"{self.num_documents - 1}"
            )
        first = int(self.byte_offsets[document]) // self.dtype.itemsize
        return first, first + int(self.lengths[document])

    def _header(self) -> tuple[bytes, int, int, int, int]:
        try:
            with self.idx_path.open("rb") as file:
                content = file.read(HEADER.size)
        except OSError as error:
            raise DataError(f"{self.idx_path}: cannot be read ({error.strerror}); {_REBUILD}") from None
        if len(content) != HEADER.size:
            raise DataError(f"{self.idx_path}: {len(content)} bytes, too short for a header; {_REBUILD}")
        magic, version, code, sequences, borders = HEADER.unpack(content)
        return magic, version, code, sequences, borders

    def _expect_size(self, path: Path, expected: int) -> None:
        try:
            found = path.stat().st_size
        except OSError as error:
            partial = " (only its .partial is there)" if partial_path(path).exists() else ""
            raise DataError(f"{path}: cannot be read ({error.strerror}){partial}; {_REBUILD}") from None
        if found != expected:
            raise DataError(f"{path}: {found} bytes, its index says {expected}; {_REBUILD}")

    def _mapped(self, dtype: str, offset: int, count: int) -> np.ndarray:
        return np.memmap(self.idx_path, dtype=dtype, mode="r", offset=offset, shape=(count,))
