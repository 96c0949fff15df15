"""What every reader offers, and the one place that knows them all."""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from data_prep.account import Account
from data_prep.document import Document
from data_prep.readers.files import FilesReader
from data_prep.readers.huggingface import HuggingFaceReader
from data_prep.readers.json_lines import JsonLinesReader
from data_prep.readers.parquet import ParquetReader
from data_prep.readers.warc import WarcReader
from data_prep.texts import Texts
from data_prep.work import Piece
from gptdist.config.prep import PrepConfig
from gptdist.config.prep_sources import FilesSource, JsonLinesSource, ParquetSource, WarcSource
from gptdist.errors import DataError, DataProblemsError


class Reader(Protocol):
    """A source of a run. Nothing is looked for or opened before a method is called."""

    def pieces(self) -> list[Piece]:
        """Return everything there is to read, in order, cut where the format allows.

        Raises:
            DataError: the source is missing, empty, or not what the config says.
        """
        ...

    def versions(self) -> list[str]:
        """Return strings of which one changes whenever a file's content may have changed."""
        ...

    def documents(self, pieces: Sequence[Piece], account: Account) -> Iterator[Document]:
        """Read some pieces; what cannot become a document, ``account`` is told.

        Raises:
            DataError: a file cannot be read at all.
        """
        ...


@runtime_checkable
class TextReader(Protocol):
    """A reader whose records may be texts already."""

    def texts(self, pieces: Sequence[Piece], account: Account) -> Iterator[Texts | Document]:
        """Read what ``documents`` reads, in the same order: in columns what ``TextsBuilder`` takes on.

        Raises:
            DataError: a file cannot be read at all.
        """
        ...


def open_readers(config: PrepConfig) -> list[Reader]:
    """Return the readers of all sources, each with its files found and checked.

    Raises:
        DataProblemsError: with every source that is missing, empty, or not what the config says.
    """
    readers = [open_reader(config, index) for index in range(len(config.sources))]
    problems: list[str] = []
    for reader in readers:
        try:
            reader.pieces()
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataProblemsError(problems)
    return readers


def open_reader(config: PrepConfig, index: int) -> Reader:
    """Return the reader of a source, which looks at no disk yet: a task that knows its pieces need not find them."""
    section = config.sources[index]
    where = f"sources[{index}] '{section.name}'"
    if isinstance(section, FilesSource):
        return FilesReader(section, config, where)
    if isinstance(section, JsonLinesSource):
        return JsonLinesReader(section, config, where)
    if isinstance(section, ParquetSource):
        return ParquetReader(section, config, where)
    if isinstance(section, WarcSource):
        return WarcReader(section, config, where)
    return HuggingFaceReader(section, config, where)
