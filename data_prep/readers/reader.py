"""What every reader offers, and the one place that knows them all."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from data_prep.document import Document
from data_prep.funnel import Funnel
from data_prep.readers.files import FilesReader
from data_prep.readers.huggingface import HuggingFaceReader
from data_prep.readers.json_lines import JsonLinesReader
from gptdist.config.prep import FilesSource, JsonLinesSource, PrepConfig, SourceBase


class Reader(Protocol):
    """A source of a run, found and checked, not yet read."""

    def inputs(self) -> list[tuple[str, int]]:
        """Return name and size of every file that will be read; empty for what is not here."""
        ...

    def documents(self, funnel: Funnel) -> Iterator[Document]:
        """Read; what cannot become a document is counted in ``funnel`` or an error."""
        ...


@dataclass(frozen=True)
class OpenSource:
    """A source of the config and its reader."""

    section: SourceBase
    reader: Reader


def open_sources(config: PrepConfig) -> list[OpenSource]:
    """Find every source's files, so that a missing or empty one is known before anything is read.

    Raises:
        DataError: a path is missing, or nothing is there to read.
    """
    return [OpenSource(section, _reader(index, config)) for index, section in enumerate(config.sources)]


def _reader(index: int, config: PrepConfig) -> Reader:
    section = config.sources[index]
    where = f"sources[{index}] '{section.name}'"
    skip = config.on_bad_encoding == "skip"
    if isinstance(section, FilesSource):
        return FilesReader(section, where=where, seed=config.seed, skip_bad_encoding=skip)
    if isinstance(section, JsonLinesSource):
        return JsonLinesReader(section, where=where, seed=config.seed, skip_bad_encoding=skip)
    return HuggingFaceReader(section, where=where, skip_bad_encoding=skip)
