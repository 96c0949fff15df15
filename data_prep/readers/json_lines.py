"""One document a line of JSON, from plain or compressed files."""

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any

from data_prep.document import Document
from data_prep.funnel import Funnel
from data_prep.readers.found import FoundFile, find_files, in_random_order
from gptdist.config.prep import JsonLinesSource
from gptdist.errors import DataError

_PATTERNS = ("**/*.jsonl", "**/*.jsonl.gz", "**/*.jsonl.zst")


class JsonLinesReader:
    """Read the files of a ``jsonl`` source.

    Args:
        section: the source.
        where: what to put before an error.
        seed: keys which files come first where ``max_bytes`` will cut.
        skip_bad_encoding: count lines that are not UTF-8 instead of stopping.

    Raises:
        DataError: a path is missing, or no file matches.
    """

    def __init__(self, section: JsonLinesSource, *, where: str, seed: int, skip_bad_encoding: bool) -> None:
        self._section = section
        self._skip = skip_bad_encoding
        files = find_files(section.paths, include=_PATTERNS, exclude=(), where=where)
        self._files = files if section.max_bytes is None else in_random_order(files, seed)

    def inputs(self) -> list[tuple[str, int]]:
        """Return label and size of every file."""
        return [(file.label, file.size) for file in self._files]

    def documents(self, funnel: Funnel) -> Iterator[Document]:
        """Read the lines; blank ones are no documents.

        Raises:
            DataError: a line is not UTF-8, not JSON, or has no text; a file cannot be read or is cut short.
        """
        for file in self._files:
            for number, line in _lines(file):
                if line.isspace():
                    continue
                document = self._document(file, number, line)
                if document is None:
                    funnel.refuse("bad_encoding", len(line))
                else:
                    yield document

    def _document(self, file: FoundFile, number: int, line: bytes) -> Document | None:
        """Return the document of a line, or None where its encoding is bad and may be skipped."""
        place = f"{file.path}:{number}"
        try:
            record = json.loads(line.decode("utf-8"))
            document = self._from_record(record, file.label, number, place)
            document.utf8  # noqa: B018 - a lone surrogate such as \ud800 is JSON but no text: found out here
        except UnicodeError as error:
            if self._skip:
                return None
            at = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ": a lone surrogate"
            raise DataError(f"{place}: not UTF-8{at}; mend the line, or set on_bad_encoding: skip") from None
        except ValueError as error:
            raise DataError(f"{place}: not JSON ({error}); mend or remove the line") from None
        return document

    def _from_record(self, record: Any, label: str, number: int, place: str) -> Document:
        key = self._section.text_key
        if not isinstance(record, dict) or not isinstance(record.get(key), str):
            keys = (
                ", ".join(sorted(record)[:10]) if isinstance(record, dict) else f"none, it is a {type(record).__name__}"
            )
            raise DataError(f"{place}: no string under '{key}' (keys: {keys}); set text_key, or mend the line")
        url = record.get(self._section.url_key) if self._section.url_key is not None else None
        return Document(record[key], label, record=number, url=url if isinstance(url, str) else None)


def _lines(file: FoundFile) -> Iterator[tuple[int, bytes]]:
    try:
        with file.path.open("rb") as content:
            yield from enumerate(_decompressed(content, file.path.suffix), start=1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file.path}: cannot be read to its end ({error}); restore it, or remove it") from None


def _decompressed(content: IO[bytes], suffix: str) -> Iterable[bytes]:
    if suffix == ".gz":
        return gzip.GzipFile(fileobj=content)
    if suffix == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.CompressedInputStream(content, "zstd"))
    return content
