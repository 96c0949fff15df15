"""One document a row of Parquet files."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.account import Account
from data_prep.document import Document
from data_prep.readers.accept import accept_field, is_too_large
from data_prep.readers.found import FoundFile
from data_prep.readers.source_files import SourceFiles
from data_prep.readers.storage import first_line, open_file
from data_prep.texts import Texts, TextsBuilder
from data_prep.work import Piece
from gptdist.config.prep import PrepConfig
from gptdist.config.prep_sources import ParquetSource
from gptdist.errors import DataError

_PATTERNS = ("**/*.parquet",)
_BATCH_BYTES, _BATCH_ROWS = 1 << 23, 1024
_FOOTERS_AT_ONCE = 16
"""Footers of remote files are a round trip each."""


@dataclass(frozen=True)
class _Group:
    rows: int
    size: int
    """Bytes on disk, of all columns."""


class ParquetReader:
    """Read the files of a ``parquet`` source.

    Args:
        section: the source.
        config: the run.
        where: what to put before an error.
    """

    def __init__(self, section: ParquetSource, config: PrepConfig, where: str) -> None:
        self._section = section
        self._where = where
        self._files = SourceFiles(section, config, where, include=_PATTERNS)
        self._max_record_bytes = config.max_record_bytes
        self._min_characters = config.filters.min_characters

    def pieces(self) -> list[Piece]:
        """Return the files, cut between row groups.

        Raises:
            DataError: a file lacks a column.
        """
        return self._pieces

    def versions(self) -> list[str]:
        """Return label and version of every file."""
        return self._files.versions()

    def documents(self, pieces: Sequence[Piece], account: Account) -> Iterator[Document]:
        """Read the rows.

        Raises:
            DataError: a file cannot be read, or lacks a column.
        """
        for piece in pieces:
            for row, batch in self._batches_of(piece, account):
                for number, text, url in self._values(batch, row):
                    document = self._document(piece, number, text, url, account)
                    if document is not None:
                        yield document

    def texts(self, pieces: Sequence[Piece], account: Account) -> Iterator[Texts | Document]:
        """Read the rows, in columns where they are in order.

        Raises:
            DataError: a file cannot be read, or lacks a column.
        """
        for piece in pieces:
            builder = TextsBuilder(
                piece.label, self._min_characters, offsets=False, urls=self._section.url_key is not None
            )
            for row, batch in self._batches_of(piece, account):
                for number, text, url in self._values(batch, row):
                    is_text = isinstance(text, str) and len(text) <= self._max_record_bytes
                    if is_text and builder.take(text, number, None, url):
                        continue
                    yield from builder.flush()
                    document = self._document(piece, number, text, url, account)
                    if document is not None:
                        yield document
                if builder.is_full:
                    yield from builder.flush()
            yield from builder.flush()

    @cached_property
    def _pieces(self) -> list[Piece]:
        files = self._files.files
        with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
            groups = list(pool.map(self._groups, files))
        return [piece for file, found in zip(files, groups, strict=True) for piece in self._cut(file, found)]

    def _groups(self, file: FoundFile) -> list[_Group]:
        """Return a file's row groups; none where it is no Parquet file, which reading will find out."""
        with open_file(file.path) as source:
            try:
                opened = pq.ParquetFile(source)
            except (pa.ArrowException, OSError):
                return []
            self._check_columns(file.label, opened.schema_arrow)
            groups = (opened.metadata.row_group(index) for index in range(opened.num_row_groups))
            return [_Group(group.num_rows, _size_on_disk(group)) for group in groups]

    def _cut(self, file: FoundFile, groups: list[_Group]) -> Iterator[Piece]:
        target = self._files.piece_bytes
        if file.size <= target or len(groups) < 2:
            yield Piece(file.path, file.label, file.size)
            return
        begin = size = rows = rows_before = 0
        for index, group in enumerate(groups):
            if size and size + group.size > target:
                yield Piece(file.path, file.label, size, begin, index, rows_before)
                begin, size, rows_before = index, 0, rows
            size += group.size
            rows += group.rows
        yield Piece(file.path, file.label, size, begin, len(groups), rows_before)

    def _check_columns(self, label: str, schema: Any) -> None:
        """Refuse a file that lacks a column, or whose column holds no text.

        Raises:
            DataError: it does.
        """
        section = self._section
        for setting, name in (("text_key", section.text_key), ("url_key", section.url_key)):
            if name is not None and name not in schema.names:
                columns = ", ".join(schema.names)
                raise DataError(f"{self._where}: {label}: no column '{name}' (columns: {columns}); set {setting}")
        kind = schema.field(section.text_key).type
        if not _is_text(kind):
            raise DataError(f"{self._where}: {label}: column '{section.text_key}' holds {kind}, no text; set text_key")

    def _batches_of(self, piece: Piece, account: Account) -> Iterator[tuple[int, Any]]:
        """Yield the record batches of a piece, each with the number of its first row."""
        with open_file(piece.path) as source:
            try:
                file = pq.ParquetFile(source)
            except (pa.ArrowException, OSError) as error:
                advice = "replace it, or take it out of the source"
                account.damaged("not_parquet", piece.label, f"no Parquet file ({first_line(error)}); {advice}")
                return
            self._check_columns(piece.label, file.schema_arrow)
            first = piece.first_record
            for index in range(piece.begin, file.num_row_groups if piece.end is None else piece.end):
                group = file.metadata.row_group(index)
                row = first
                try:
                    for batch in self._batches(file, index, group):
                        yield row, batch
                        row += batch.num_rows
                except (pa.ArrowException, OSError) as error:
                    place = f"{piece.label}, row {row}"
                    detail = f"row group {index} not read any further ({first_line(error)}); restore the file"
                    account.damaged("bad_row_group", place, detail)
                first += group.num_rows

    def _batches(self, file: Any, index: int, group: Any) -> Iterator[Any]:
        section = self._section
        columns = [section.text_key] + ([section.url_key] if section.url_key is not None else [])
        row_bytes = group.total_byte_size / max(1, group.num_rows)
        rows = max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / max(1.0, row_bytes))))
        return file.iter_batches(batch_size=rows, row_groups=[index], columns=columns, use_threads=False)

    def _values(self, batch: Any, row: int) -> Iterator[tuple[int, Any, str | None]]:
        """Yield number, text and address of each row; a text is what the column holds."""
        section = self._section
        texts = values_of(batch.column(section.text_key))
        urls = values_of(batch.column(section.url_key)) if section.url_key is not None else [None] * len(texts)
        for number, (text, url) in enumerate(zip(texts, urls, strict=True), start=row):
            yield number, text, url if isinstance(url, str) else None

    def _document(self, piece: Piece, number: int, text: Any, url: str | None, account: Account) -> Document | None:
        section, place = self._section, f"{piece.label}, row {number}"
        if not isinstance(text, str | bytes):
            account.damaged("no_text", place, f"no text in column '{section.text_key}'; mend the row")
            return None
        if is_too_large(len(text), self._max_record_bytes, place, account):
            return None
        origin = Document("", piece.label, record=number, url=url)
        return accept_field(text, section.format == "html", origin, place, account)


def values_of(column: Any) -> list[Any]:
    """Return a column's values; where a string is not UTF-8, which nothing checked before, all of them as bytes."""
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return list(column.cast(pa.large_binary()).to_pylist())


def _is_text(kind: Any) -> bool:
    types = pa.types
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
    return any(test(kind) for test in tests)


def _size_on_disk(group: Any) -> int:
    return sum(group.column(index).total_compressed_size for index in range(group.num_columns))
