"""The kept documents of an input shard between two steps: an Arrow file, read in batches.

Columns: text, path, record, offset, url, language, digest (16 bytes), key (64-bit place in the random order),
validation (whether the document belongs to that split). A document's number is its row.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from data_prep.document import Document
from data_prep.hashing import DIGEST_BYTES, order_keys, validation_places
from data_prep.texts import Texts

FILE_NAME = "documents.arrow"
SCHEMA = pa.schema(
    [
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("record", pa.int64(), nullable=False),
        pa.field("offset", pa.int64()),
        pa.field("url", pa.string()),
        pa.field("language", pa.string()),
        pa.field("digest", pa.binary(DIGEST_BYTES), nullable=False),
        pa.field("key", pa.uint64(), nullable=False),
        pa.field("validation", pa.bool_(), nullable=False),
    ]
)
_BATCH_BYTES = 1 << 23
_BATCH_DOCUMENTS = 4096


class KeptWriter:
    """Write the file as a stream.

    Args:
        folder: where ``documents.arrow`` goes.
        seed: keys the random order.
        validation_fraction: share of documents, by a hash of their text, of the validation split.
        compression: ``lz4``, ``zstd``, or None.
    """

    def __init__(self, folder: Path, seed: int, validation_fraction: float, compression: str | None = None) -> None:
        self._seed, self._fraction = seed, validation_fraction
        options = pa.ipc.IpcWriteOptions(compression=compression)
        self._writer = pa.ipc.new_file(str(folder / FILE_NAME), SCHEMA, options=options)
        self._batch: list[Document] = []
        self._size = 0
        self.lowest_place = 1.0
        """The validation fraction above which a document would be validation."""

    def append(self, document: Document) -> None:
        """Add a document."""
        self._batch.append(document)
        self._size += len(document.utf8)
        if self._size >= _BATCH_BYTES or len(self._batch) >= _BATCH_DOCUMENTS:
            self._flush()

    def append_all(self, texts: Texts) -> None:
        """Add documents that are columns already."""
        self._flush()
        count = len(texts)
        self._write(
            texts.digests,
            {
                "text": texts.texts,
                "path": pa.repeat(texts.path, count),
                "record": texts.records,
                "offset": pa.nulls(count, pa.int64()) if texts.offsets is None else texts.offsets,
                "url": pa.nulls(count, pa.string()) if texts.urls is None else texts.urls,
                "language": pa.nulls(count, pa.string()),
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        batch, self._batch, self._size = self._batch, [], 0
        if not batch:
            return
        columns = {
            "text": [document.text for document in batch],
            "path": [document.path for document in batch],
            "record": [document.record for document in batch],
            "offset": [document.offset for document in batch],
            "url": [document.url for document in batch],
            "language": [document.language for document in batch],
        }
        self._write(b"".join([document.digest for document in batch]), columns)

    def _write(self, digests: bytes, columns: dict[str, Any]) -> None:
        """Write documents with what their digests decide."""
        places = validation_places(digests)
        self.lowest_place = min(self.lowest_place, float(places.min()))
        decided = {
            "digest": pa.Array.from_buffers(pa.binary(DIGEST_BYTES), places.size, [None, pa.py_buffer(digests)]),
            "key": order_keys(self._seed, digests),
            "validation": places < self._fraction,
        }
        self._writer.write_batch(pa.RecordBatch.from_pydict({**columns, **decided}, schema=SCHEMA))


def read_batches(folder: Path, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Yield the record batches of a shard's file, of ``columns`` only, in order; one batch is in memory at a time."""
    options = pa.ipc.IpcReadOptions(
        included_fields=None if columns is None else sorted(SCHEMA.get_field_index(name) for name in columns)
    )
    with pa.memory_map(str(folder / FILE_NAME)) as source, pa.ipc.open_file(source, options=options) as reader:
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)
