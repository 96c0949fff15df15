"""What became of every document of an input shard, as rows that are collected in columns."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

_PACKED_ROWS = 4096


class Row(NamedTuple):
    """One document's fate."""

    path: str
    record: int
    offset: int | None
    url: str | None
    language: str | None
    text_bytes: int
    outcome: str
    """``kept``, or ``stage.rule`` such as ``gopher_quality.mean_word_length``."""

    numbers: str | None
    """JSON object: what the rule measured and its threshold."""

    document: int | None
    """Its number among the shard's kept documents."""


ROW_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("record", pa.int64(), nullable=False),
        pa.field("offset", pa.int64()),
        pa.field("url", pa.string()),
        pa.field("language", pa.string()),
        pa.field("text_bytes", pa.int64(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("numbers", pa.string()),
        pa.field("document", pa.int64()),
    ]
)


class Rows:
    """Rows in order, appended one at a time or many together."""

    def __init__(self) -> None:
        self._packed: list[Any] = []
        self._recent: list[Row] = []
        self._count = 0

    def append(self, row: Row) -> None:
        """Add a row."""
        self._recent.append(row)
        self._count += 1
        if len(self._recent) == _PACKED_ROWS:
            self._pack()

    def extend(self, batch: Any) -> None:
        """Add a record batch of ``ROW_SCHEMA``."""
        self._pack()
        self._packed.append(batch)
        self._count += batch.num_rows

    def table(self, paths: Sequence[str] = ()) -> Any:
        """Return all rows as an Arrow table: in the order of their records, those of a path together.

        Stages read ahead of each other, so that a row may come before that of an earlier record.

        Args:
            paths: order of the paths, where it is known; it may name one twice.
        """
        self._pack()
        table = pa.Table.from_batches(self._packed, ROW_SCHEMA)
        found = table.column("path").combine_chunks().dictionary_encode()
        place = {path: number for number, path in reversed([*enumerate(paths)])}
        places = np.array([place.get(path, len(place)) for path in found.dictionary.to_pylist()], dtype=np.int64)
        keys = (found.indices.to_numpy(), places[found.indices.to_numpy()]) if len(table) else ()
        order = np.lexsort((table.column("record").to_numpy(), *keys))
        return table if (np.diff(order) == 1).all() else table.take(pa.array(order))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row]:
        self._pack()
        return rows_of(pa.Table.from_batches(self._packed, ROW_SCHEMA))

    def _pack(self) -> None:
        rows, self._recent = self._recent, []
        if not rows:
            return
        paths, records, offsets, urls, *others = zip(*rows, strict=True)
        stored = ([storable(path) for path in paths], [url if url is None else storable(url) for url in urls])
        columns = (stored[0], records, offsets, stored[1], *others)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, ROW_SCHEMA, strict=True)]
        self._packed.append(pa.RecordBatch.from_arrays(arrays, schema=ROW_SCHEMA))


def rows_of(table: Any) -> Iterator[Row]:
    """Yield the rows of a table that has the columns of ``ROW_SCHEMA``."""
    for batch in table.select(ROW_SCHEMA.names).to_batches():
        yield from map(Row, *(column.to_pylist() for column in batch.columns))


def storable(text: str) -> str:
    """Replace lone surrogates: an address out of a JSON file, or a command line, may hold one, Arrow may not."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
