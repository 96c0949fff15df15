"""Where each document of a shard came from: a Parquet file beside it, one row a document, in the shard's order.

Where best-fit packing cut a document, each piece has a row, as it has a sequence in the index.
"""

import hashlib
from collections.abc import Iterator, Sequence
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
    """Line of a JSON Lines file (from 1), row of a table or record of a WARC file (from 0); 0 for a whole file."""

    url: str | None
    text_bytes: int
    """UTF-8 bytes of the whole document; 0 for all of its pieces but the first."""

    tokens: int
    """Tokens in the shard: end-of-document included, and the padding behind a piece that ends a training sample."""

    text_digest: str
    """BLAKE2b-128 of the UTF-8 text, hexadecimal; of the whole document, before repeated lines were cut."""

    offset: int | None = None
    """Byte at which the record begins in the file, compressed as it is; unset for a whole file or a row of a table."""

    language: str | None = None
    piece: int = 0
    """Which piece of a document that packing cut, from 0."""


def provenance_path(folder: Path, shard: str) -> Path:
    """Return the Parquet file of a shard."""
    return folder / f"{shard}.parquet"


class ProvenanceWriter:
    """Write the Parquet file of one shard as a stream; ``close`` names it and returns its SHA-256."""

    def __init__(self, folder: Path, shard: str) -> None:
        import pyarrow.parquet

        self._path = provenance_path(folder, shard)
        self._held: list[Any] = []
        self._num_held = 0
        self._writer = pyarrow.parquet.ParquetWriter(
            partial_path(self._path), provenance_schema(), compression="zstd", use_dictionary=["path", "language"]
        )

    def append(self, rows: Any) -> None:
        """Add documents, in the shard's order: a pyarrow table of ``provenance_schema``."""
        self._held.append(rows)
        self._num_held += rows.num_rows
        if self._num_held >= _ROW_GROUP:
            self._write(self._num_held - self._num_held % _ROW_GROUP)

    def append_rows(self, rows: Sequence[Provenance]) -> None:
        """Add a few documents."""
        import pyarrow

        self.append(pyarrow.Table.from_pylist([vars(row) for row in rows], schema=provenance_schema()))

    def close(self) -> str:
        """Finish the file."""
        self._write(self._num_held)
        self._writer.close()
        publish(self._path)
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def discard(self) -> None:
        """Remove what was written; nothing happens after ``close``."""
        self._writer.close()
        partial_path(self._path).unlink(missing_ok=True)

    def _write(self, count: int) -> None:
        """Write the first ``count`` rows that are held; row groups do not depend on how rows came."""
        import pyarrow

        if count:
            held = pyarrow.concat_tables(self._held)
            self._writer.write_table(held.slice(0, count), row_group_size=_ROW_GROUP)
            self._held, self._num_held = [held.slice(count)], held.num_rows - count


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


def read_columns(folder: Path, shard: str, names: Sequence[str]) -> Iterator[Any]:
    """Yield columns of a shard's Parquet file as pyarrow record batches, a row group in memory at a time.

    Raises:
        DataError: the Parquet file is missing or damaged.
    """
    with _open(provenance_path(folder, shard)) as file:
        yield from file.iter_batches(batch_size=_ROW_GROUP, columns=list(names))


def read_digests(folder: Path, shard: str) -> list[str]:
    """Return the text digest of every document of a shard.

    Raises:
        DataError: the Parquet file is missing or damaged.
    """
    return [str(digest) for batch in read_columns(folder, shard, ["text_digest"]) for digest in batch[0].to_pylist()]


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
    if not file.schema_arrow.equals(provenance_schema()):
        raise DataError(f"{path}: its columns are not those of a provenance file; prepare the data again")
    return file


def provenance_schema() -> Any:
    """Return the columns of the Parquet file, as a pyarrow schema."""
    import pyarrow

    return pyarrow.schema(
        [
            pyarrow.field("path", pyarrow.string(), nullable=False),
            pyarrow.field("record", pyarrow.int64(), nullable=False),
            pyarrow.field("offset", pyarrow.int64()),
            pyarrow.field("url", pyarrow.string()),
            pyarrow.field("language", pyarrow.string()),
            pyarrow.field("text_bytes", pyarrow.int64(), nullable=False),
            pyarrow.field("tokens", pyarrow.int64(), nullable=False),
            pyarrow.field("piece", pyarrow.int64(), nullable=False),
            pyarrow.field("text_digest", pyarrow.string(), nullable=False),
        ]
    )
