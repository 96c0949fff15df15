"""The rows of a finished run's account: one Parquet file an input shard, one row a document or dropped record."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.account import KEPT
from data_prep.account_rows import ROW_SCHEMA

ACCOUNT_SCHEMA = ROW_SCHEMA.insert(ROW_SCHEMA.get_field_index("outcome"), pa.field("tokens", pa.int64()))
"""``document`` is the row among the documents that passed the first step; a duplicate's ``numbers`` name the kept
document by ``kept_shard`` (the number in its file's name) and ``kept_row`` (its ``document``)."""

Array = np.ndarray
"""int64."""

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


def with_later(
    table: Any, tokens: tuple[Array, Array], removed: Mapping[int, Removal], sizes: Mapping[int, int]
) -> Any:
    """Return the rows of the first step's account with what became of its documents later.

    Args:
        table: has the columns of ``ROW_SCHEMA``.
        tokens: numbers (``Row.document``) of the documents that are left, and the tokens of each.
        removed: outcome (``dedup.exact``) and numbers of each document that is not, by ``Row.document``.
        sizes: bytes of documents whose text was cut after the first step, by ``Row.document``.
    """
    documents = table.column("document").fill_null(-1).to_numpy()
    return pa.table(
        {
            **{name: table.column(name) for name in ("path", "record", "offset", "url", "language")},
            "text_bytes": _sizes(table.column("text_bytes").to_numpy(), documents, sizes),
            "tokens": _tokens(documents, *tokens),
            **_outcomes(table, documents, removed),
            "document": table.column("document"),
        },
        schema=ACCOUNT_SCHEMA,
    )


def write_table(path: Path, table: Any) -> None:
    """Write rows; the bytes depend on the rows alone."""
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        writer.write_table(table.combine_chunks(), row_group_size=_ROW_GROUP)


def read_table(path: Path) -> Any:
    """Return the rows of a file, without what came later than the first step."""
    return pq.read_table(path, columns=ROW_SCHEMA.names, use_threads=False)


def _sizes(sizes: Array, documents: Array, changed: Mapping[int, int]) -> Array:
    if not changed:
        return sizes
    sizes = sizes.copy()
    place = np.full(int(documents.max(initial=-1)) + 1, -1)
    place[documents[documents >= 0]] = np.flatnonzero(documents >= 0)
    sizes[place[list(changed)]] = list(changed.values())
    return sizes


def _tokens(documents: Array, numbers: Array, counts: Array) -> Any:
    of_document = np.full(int(documents.max(initial=-1)) + 2, -1, dtype=np.int64)  # the last is no document
    of_document[numbers] = counts
    found = of_document[documents]
    return pa.array(found, mask=found < 0)


def _outcomes(table: Any, documents: Array, removed: Mapping[int, Removal]) -> dict[str, Any]:
    if not removed:
        return {name: table.column(name) for name in ("outcome", "numbers")}
    outcomes, numbers = table.column("outcome").to_pylist(), table.column("numbers").to_pylist()
    for place in np.flatnonzero(np.isin(documents, list(removed))).tolist():
        outcome, measured = removed[int(documents[place])]
        assert outcome != KEPT, f"document {documents[place]} is removed as '{KEPT}'"
        outcomes[place] = outcome
        numbers[place] = json.dumps(measured, sort_keys=True) if measured else None
    return {"outcome": outcomes, "numbers": numbers}
