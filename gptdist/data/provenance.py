"""Where each document of a shard came from: a Parquet file beside it, one row a document, in the shard's order."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptdist.durable import partial_path, publish
from gptdist.errors import DataError

_ROW_GROUP = 16_384
"""Documents of a row group: what has to be read to find one document."""


@dataclass(frozen=True)
class DocumentSpan:
    """A document, and where its tokens are in the token stream of its split."""

    shard: str
    document: int
    """Its number in the shard, which is its row in the shard's Parquet file."""

    first_token: int
    last_token: int
    """Its end-of-document token."""


@dataclass(frozen=True)
class Provenance:
    """Where a document came from."""

    path: str
    """File, folder or dataset name; ``{stdlib}`` and ``{site-packages}`` stand for those folders."""

    record: int
    """Line of a JSON Lines file (from 1) or row of a dataset (from 0); 0 for a whole file."""

    url: str | None
    text_bytes: int
    tokens: int
    text_digest: str
    """BLAKE2b-128 of the UTF-8 text, hexadecimal."""


def provenance_path(folder: Path, shard: str) -> Path:
    """Return the Parquet file of a shard."""
    return folder / f"{shard}.parquet"


class ProvenanceWriter:
    """Write the Parquet file of one shard as a stream; ``close`` names it and returns its SHA-256."""

    def __init__(self, folder: Path, shard: str) -> None:
        import pyarrow.parquet

        self._path = provenance_path(folder, shard)
        self._rows: list[Provenance] = []
        self._schema = _schema()
        self._writer = pyarrow.parquet.ParquetWriter(partial_path(self._path), self._schema, compression="zstd")

    def append(self, rows: Sequence[Provenance]) -> None:
        """Add documents, in the shard's order."""
        self._rows += rows
        if len(self._rows) >= _ROW_GROUP:
            self._flush()

    def close(self) -> str:
        """Finish the file."""
        self._flush()
        self._writer.close()
        publish(self._path)
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _flush(self) -> None:
        import pyarrow

        if self._rows:
            rows = [vars(row) for row in self._rows]
            self._writer.write_table(pyarrow.Table.from_pylist(rows, schema=self._schema))
            self._rows = []


def read_provenance(folder: Path, spans: Sequence[DocumentSpan]) -> list[Provenance]:
    """Return where the documents of ``spans`` came from, in their order; reads their row groups only.

    Raises:
        DataError: a Parquet file is missing, damaged, or has no row for a document.
    """
    wanted: dict[str, dict[int, Provenance | None]] = {}
    for span in spans:
        wanted.setdefault(span.shard, {})[span.document] = None
    for shard, rows in wanted.items():
        _fill(provenance_path(folder, shard), rows)
    return [found for span in spans if (found := wanted[span.shard][span.document]) is not None]


def read_digests(folder: Path, shard: str) -> list[str]:
    """Return the text digest of every document of a shard.

    Raises:
        DataError: the Parquet file is missing or damaged.
    """
    return [str(digest) for digest in _open(provenance_path(folder, shard)).read(["text_digest"])[0].to_pylist()]


def _fill(path: Path, rows: dict[int, Provenance | None]) -> None:
    file = _open(path)
    if max(rows) >= file.metadata.num_rows:
        raise DataError(f"{path}: {file.metadata.num_rows} rows, none for document {max(rows)}; prepare the data again")
    first = 0
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        numbers = [number for number in rows if first <= number < first + count]
        if numbers:
            table = file.read_row_group(group)
            for number in numbers:
                rows[number] = Provenance(**table.slice(number - first, 1).to_pylist()[0])
        first += count


def _open(path: Path) -> Any:
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read ({str(error).splitlines()[0]}); prepare the data again") from None
    if not file.schema_arrow.equals(_schema()):
        raise DataError(f"{path}: its columns are not those of a provenance file; prepare the data again")
    return file


def _schema() -> Any:
    import pyarrow

    return pyarrow.schema(
        [
            pyarrow.field("path", pyarrow.string(), nullable=False),
            pyarrow.field("record", pyarrow.int64(), nullable=False),
            pyarrow.field("url", pyarrow.string()),
            pyarrow.field("text_bytes", pyarrow.int64(), nullable=False),
            pyarrow.field("tokens", pyarrow.int64(), nullable=False),
            pyarrow.field("text_digest", pyarrow.string(), nullable=False),
        ]
    )
