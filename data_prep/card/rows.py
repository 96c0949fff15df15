"""The rows of a finished run's account: one Parquet file an input shard, one row a document or dropped record."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.account import KEPT, Row

ACCOUNT_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("record", pa.int64(), nullable=False),
        pa.field("offset", pa.int64()),
        pa.field("url", pa.string()),
        pa.field("language", pa.string()),
        pa.field("text_bytes", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64()),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("numbers", pa.string()),
        pa.field("document", pa.int64()),
    ]
)
"""``document`` is the row among the documents that passed the first step; a duplicate's ``numbers`` name the kept
document by ``kept_shard`` (the number in its file's name) and ``kept_row`` (its ``document``)."""

Removal = tuple[str, Mapping[str, Any] | None]
"""Outcome and numbers of a document that a later step dropped."""

_ROW_GROUP = 1 << 16
_FILE_NAME = re.compile(r"(.+)-(\d{5,})\.parquet")


def rows_file_name(source: str, shard: int) -> str:
    """Return the name of the file that holds an input shard's rows."""
    return f"{source}-{shard:05d}.parquet"


def shard_of(file_name: str) -> tuple[str, int] | None:
    """Return source and shard number from a file's name, if it is one that ``rows_file_name`` gives."""
    found = _FILE_NAME.fullmatch(file_name)
    return (found[1], int(found[2])) if found else None


def write_rows(
    path: Path,
    rows: Iterable[Row],
    tokens: Mapping[int, int],
    removed: Mapping[int, Removal],
    text_bytes: Mapping[int, int] | None = None,
) -> None:
    """Write an input shard's rows, with what became of its documents after the first step.

    Row groups are written as they fill, and the bytes depend on the arguments alone.

    Args:
        path: the file to write.
        rows: rows of the first step's account, in its order.
        tokens: number of tokens of each document that is left, by ``Row.document``.
        removed: outcome (``dedup.exact``) and numbers of each document that is not, by ``Row.document``.
        text_bytes: bytes of documents whose text was cut after the first step, by ``Row.document``.
    """
    later = _Later(tokens, removed, text_bytes or {})
    unwritten = iter(rows)
    with pq.ParquetWriter(path, ACCOUNT_SCHEMA, compression="zstd") as writer:
        while batch := list(islice(unwritten, _ROW_GROUP)):
            columns = pa.Table.from_pydict(later.columns(batch), schema=ACCOUNT_SCHEMA)
            writer.write_table(columns, row_group_size=_ROW_GROUP)


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file, as they went into ``write_rows`` but for what came later."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROW_GROUP, columns=[name for name in ACCOUNT_SCHEMA.names if name != "tokens"]):
            columns = {name: batch.column(name).to_pylist() for name in batch.schema.names}
            yield from map(Row, *(columns[field.name] for field in fields(Row)))


def storable(text: str) -> str:
    """Replace lone surrogates: an address out of a JSON file, or a command line, may hold one, Parquet may not."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


@dataclass(frozen=True)
class _Later:
    """What became of documents after the first step."""

    tokens: Mapping[int, int]
    removed: Mapping[int, Removal]
    text_bytes: Mapping[int, int]

    def columns(self, rows: Sequence[Row]) -> dict[str, list[Any]]:
        """Return the columns of some rows."""
        numbers = [row.document for row in rows]
        outcomes = [self._outcome(row) for row in rows]
        return {
            "path": [storable(row.path) for row in rows],
            "record": [row.record for row in rows],
            "offset": [row.offset for row in rows],
            "url": [row.url if row.url is None else storable(row.url) for row in rows],
            "language": [row.language for row in rows],
            "text_bytes": [self._size(row) for row in rows],
            "tokens": [self.tokens.get(number) if number is not None else None for number in numbers],
            "outcome": [outcome for outcome, _ in outcomes],
            "numbers": [number for _, number in outcomes],
            "document": numbers,
        }

    def _size(self, row: Row) -> int:
        return row.text_bytes if row.document is None else self.text_bytes.get(row.document, row.text_bytes)

    def _outcome(self, row: Row) -> tuple[str, str | None]:
        removal = None if row.document is None else self.removed.get(row.document)
        if removal is None:
            return row.outcome, row.numbers
        outcome, numbers = removal
        assert outcome != KEPT, f"document {row.document} is removed as '{KEPT}'"
        return outcome, json.dumps(numbers, sort_keys=True) if numbers else None
