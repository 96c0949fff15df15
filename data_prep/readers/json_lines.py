"""One document a line of JSON, from plain or compressed files."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import orjson

from data_prep.account import Account
from data_prep.document import Document
from data_prep.readers.accept import accept_field
from data_prep.readers.found import FoundFile
from data_prep.readers.lines import codec_of, cut_at_lines, read_lines
from data_prep.readers.source_files import SourceFiles
from data_prep.readers.storage import first_line
from data_prep.texts import Texts, TextsBuilder
from data_prep.work import Piece
from gptdist.config.prep import PrepConfig
from gptdist.config.prep_sources import JsonLinesSource

_PATTERNS = ("**/*.jsonl", "**/*.jsonl.gz", "**/*.jsonl.zst")


_CUT_AT_ONCE = 8
"""Files whose lines are counted at a time: most of it is waiting for storage."""


class JsonLinesReader:
    """Read the files of a ``jsonl`` source.

    Args:
        section: the source.
        config: the run.
        where: what to put before an error.
    """

    def __init__(self, section: JsonLinesSource, config: PrepConfig, where: str) -> None:
        self._section = section
        self._files = SourceFiles(section, config, where, include=_PATTERNS)
        self._max_record_bytes = config.max_record_bytes
        self._min_characters = config.filters.min_characters

    def pieces(self) -> list[Piece]:
        """Return the files; plain ones are cut where lines begin."""
        return self._pieces

    def versions(self) -> list[str]:
        """Return label and version of every file."""
        return self._files.versions()

    def documents(self, pieces: Sequence[Piece], account: Account) -> Iterator[Document]:
        """Read the lines; blank ones are no documents, but counted.

        Raises:
            DataError: a file cannot be read.
        """
        for piece in pieces:
            for number, offset, line in self._lines(piece, account):
                document = self._document(piece, number, offset, line, account)
                if document is not None:
                    yield document

    def texts(self, pieces: Sequence[Piece], account: Account) -> Iterator[Texts | Document]:
        """Read the lines, in columns where they are in order.

        Raises:
            DataError: a file cannot be read.
        """
        for piece in pieces:
            builder = TextsBuilder(
                piece.label, self._min_characters, offsets=True, urls=self._section.url_key is not None
            )
            for number, offset, line in self._lines(piece, account):
                if self._take(builder, number, offset, line):
                    if builder.is_full:
                        yield from builder.flush()
                    continue
                yield from builder.flush()
                document = self._document(piece, number, offset, line, account)
                if document is not None:
                    yield document
            yield from builder.flush()

    def _take(self, builder: TextsBuilder, number: int, offset: int, line: bytes) -> bool:
        section = self._section
        try:
            record = orjson.loads(line)
        except ValueError:
            return False
        text = record.get(section.text_key) if isinstance(record, dict) else None
        if not isinstance(text, str):
            return False
        url = record.get(section.url_key) if section.url_key is not None else None
        return builder.take(text, number, offset, url if isinstance(url, str) else None)

    @cached_property
    def _pieces(self) -> list[Piece]:
        with ThreadPoolExecutor(_CUT_AT_ONCE) as pool:
            return [piece for pieces in pool.map(self._cut, self._files.files) for piece in pieces]

    def _cut(self, file: FoundFile) -> list[Piece]:
        target = self._files.piece_bytes
        if file.size <= target or codec_of(file.path) is not None:
            return [Piece(file.path, file.label, file.size)]
        cuts = cut_at_lines(file.path, file.size, target)
        return [Piece(file.path, file.label, end - begin, begin, end, first) for begin, end, first in cuts]

    def _lines(self, piece: Piece, account: Account) -> Iterator[tuple[int, int, bytes]]:
        """Yield number from 1, offset and content of each line that may be a document."""
        limit, number, offset = self._max_record_bytes, piece.first_record, piece.begin
        try:
            for offset, line in read_lines(piece.path, piece.begin, piece.end, limit):
                number += 1
                if line is None:
                    place = _place(piece, number, offset)
                    account.damaged("record_too_large", place, f"line above max_record_bytes {limit}; cut it")
                elif line.isspace() or not line:
                    account.count("read.blank_line")
                else:
                    yield number, offset, line
        except OSError as error:
            kind = "truncated" if "runcated" in str(error) else "bad_compression"
            place = f"{piece.label}, after line {number}, byte {offset} of its content"
            account.damaged(kind, place, f"not read any further ({first_line(error)}); restore the file")

    def _document(self, piece: Piece, number: int, offset: int, line: bytes, account: Account) -> Document | None:
        section = self._section
        try:
            record = orjson.loads(line)
        except ValueError:
            record = _parse_slowly(line, _place(piece, number, offset), account)
            if record is None:
                return None
        text = record.get(section.text_key) if isinstance(record, dict) else None
        if not isinstance(text, str):
            account.damaged("no_text", _place(piece, number, offset), _missing(record, section.text_key))
            return None
        url = record.get(section.url_key) if section.url_key is not None else None
        origin = Document("", piece.label, record=number, offset=offset, url=_text_or_none(url))
        return accept_field(text, section.format == "html", origin, _place(piece, number, offset), account)


def _parse_slowly(line: bytes, place: str, account: Account) -> Any:
    """Parse what orjson refuses (lone surrogates, NaN), or tell the account what is wrong and return None."""
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        account.damaged("not_utf8", place, f"not UTF-8 at byte {error.start} of the line; mend or remove the line")
    except RecursionError:
        account.damaged("not_json", place, "not JSON (nested too deep); mend or remove the line")
    except ValueError as error:
        account.damaged("not_json", place, f"not JSON ({first_line(error)}); mend or remove the line")
    return None


def _missing(record: Any, key: str) -> str:
    found = ", ".join(sorted(record)[:10]) if isinstance(record, dict) else f"none, it is a {type(record).__name__}"
    return f"no string under '{key}' (keys: {found}); set text_key, or mend the line"


def _text_or_none(value: Any) -> str | None:
    """Return a string that can be written down: an address may be no string, or hold a lone surrogate."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else None


def _place(piece: Piece, number: int, offset: int) -> str:
    return f"{piece.label}:{number}, byte {offset}"
