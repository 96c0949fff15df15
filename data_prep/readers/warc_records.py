"""The records of a web archive in order, with every damaged one named and reading gone on behind it."""

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

from fastwarc.warc import ArchiveIterator, WarcRecordType

from data_prep.account import Account
from data_prep.readers.storage import first_line, printable
from data_prep.readers.warc_file import WarcFile
from data_prep.work import Piece


@dataclass(frozen=True)
class WarcEntry:
    """A record that is well, and its content."""

    offset: int
    content_bytes: int
    """As its header says."""

    url: str | None = None
    charset: str | None = None
    transfer_encoding: str | None = None
    content_encoding: str | None = None
    is_response: bool = False
    content: bytes | None = None
    """None where nobody wants it."""


@dataclass(frozen=True)
class _Stop:
    """Where the parser could not go on."""

    offset: int
    """Of the record before."""

    reason: str
    end: int
    """Byte behind that record."""


class WarcRecords:
    """Read the records of a file.

    The parser goes by the lengths that records state. Whether a length was true shows only behind the record, so each
    is given out when the next one is there, or the file has ended as it should.

    A part of a file has the records that begin in it: the first is looked for, and the last is read to its end, which
    may be behind the part's.

    Args:
        piece: the file, or a part of one.
        limit: largest content, in bytes.
        account: told what cannot be read.
        wants: whether a record's content is wanted; HTTP headers are parsed.
    """

    def __init__(self, piece: Piece, limit: int, account: Account, wants: Callable[[Any], bool]) -> None:
        self._label = piece.label
        self._file = WarcFile(piece.path)
        self._limit = limit
        self._account = account
        self._wants = wants
        self._begin = piece.begin
        self._end = math.inf if piece.end is None or self._file.is_one_stream else piece.end
        self._pending: _Stop | None = None
        """Why the parser stopped behind a record that is well: told once what follows is known."""

    def entries(self) -> Iterator[WarcEntry]:
        """Yield the records whose content is wanted.

        Raises:
            DataError: the file cannot be read.
        """
        position = self._first_start()
        while position is not None and position < self._end:
            position = yield from self._run(position)
        if self._pending is not None and position == self._pending.end:
            self._pending = None  # a record begins there, which whoever reads the next part will meet
        self._tell_pending()

    def _first_start(self) -> int | None:
        if self._begin == 0:
            return 0
        return None if self._file.is_one_stream else self._file.next_start(self._begin - 1)

    def _run(self, start: int) -> Generator[WarcEntry, None, int | None]:
        """Yield records from ``start`` on, until the end (None), or damage: return where to go on."""
        held: WarcEntry | None = None
        stream = self._file.open(start)
        try:
            for record in ArchiveIterator(stream, parse_http=False):
                self._tell_pending()
                if held is not None and held.content is not None:
                    yield held
                held = None
                offset = record.stream_pos
                if offset >= self._end:
                    break
                fault = _fault(record)
                if fault is not None:
                    return self._damage(*fault, offset)
                held = self._entry(record, offset)
                if held is None:
                    return self._damage("record_too_large", f"above max_record_bytes {self._limit}; raise it", offset)
                if held.content is not None and len(held.content) < record.content_length:
                    return self._cut_short(held)
        except OSError as error:
            return (yield from self._stopped(start, held, first_line(error)))
        finally:
            stream.close()
        if held is not None:
            return (yield from self._ended(held))
        return None

    def _entry(self, record: Any, offset: int) -> WarcEntry | None:
        """Return the record, with its content if that is wanted; None if it is wanted, but too large."""
        stated = record.content_length
        response = record.record_type == WarcRecordType.response
        if response and record.is_http:
            try:
                record.parse_http()
            except OSError as error:
                self._tell("bad_http_header", offset, f"HTTP header cannot be parsed ({first_line(error)})")
                return WarcEntry(offset, stated)
        if not self._wants(record):
            return WarcEntry(offset, stated)
        if stated > self._limit:
            return None
        headers = record.http_headers if response else None
        return WarcEntry(
            offset,
            stated,
            url=_address(record),
            charset=record.http_charset if response else None,
            transfer_encoding=headers.get("Transfer-Encoding") if headers is not None else None,
            content_encoding=headers.get("Content-Encoding") if headers is not None else None,
            is_response=response,
            content=record.reader.read(record.content_length),
        )

    def _stopped(self, start: int, held: WarcEntry | None, reason: str) -> Generator[WarcEntry, None, int | None]:
        """The parser cannot go on: find out whether the record before is to blame, and where the next one begins."""
        if held is None:
            self._pending = None
            return self._damage(_kind_of(reason), f"record cannot be read ({reason}); restore the file", start)
        end = self._end_of(held)
        if end is not None:
            if held.content is not None:
                yield held
            self._pending = _Stop(held.offset, reason, end)
        return self._file.next_start(held.offset)

    def _ended(self, held: WarcEntry) -> Generator[WarcEntry, None, int | None]:
        """The file is over, the parser says: make sure that its last record is whole, and that it is the last."""
        end = self._end_of(held)
        if end is None:
            return self._file.next_start(held.offset)
        if held.content is not None:
            yield held
        if self._has_more(end):
            self._tell("truncated", end, "file is cut short behind this byte; restore the file")
        return None

    def _has_more(self, position: int) -> bool:
        try:
            return self._file.has_more(position)
        except OSError:
            return True

    def _end_of(self, held: WarcEntry) -> int | None:
        """Return where a record ends; None, and the account told, if it is damaged."""
        try:
            end = self._file.end_of(held.offset, held.content_bytes)
        except EOFError:
            self._tell("truncated", held.offset, "file is cut short in this record; restore the file")
            return None
        except OSError as error:
            self._tell("bad_compression", held.offset, f"record cannot be read ({first_line(error)}); restore the file")
            return None
        if end is None:
            self._damage_length(held)
        return end

    def _cut_short(self, held: WarcEntry) -> int | None:
        """Less was there than the header says: a lie if records follow, else the file's end is missing."""
        following = self._file.next_start(held.offset)
        if following is not None:
            self._damage_length(held)
        else:
            self._tell("truncated", held.offset, "file is cut short in this record; restore the file")
        return following

    def _damage_length(self, held: WarcEntry) -> None:
        detail = f"Content-Length {held.content_bytes} is not the record's length; restore the file"
        self._tell("bad_length", held.offset, detail)

    def _damage(self, kind: str, detail: str, offset: int) -> int | None:
        self._tell(kind, offset, detail)
        return self._file.next_start(offset)

    def _tell(self, kind: str, offset: int, detail: str) -> None:
        self._account.damaged(kind, f"{self._label}, byte {offset}", detail)

    def _tell_pending(self) -> None:
        if self._pending is not None:
            stop, self._pending = self._pending, None
            detail = f"what follows this record is none ({stop.reason}); restore the file"
            self._tell(_kind_of(stop.reason), stop.offset, detail)


def _fault(record: Any) -> tuple[str, str] | None:
    """Return kind and detail of what is wrong with a record's header."""
    stated = record.headers.get("Content-Length")
    if record.headers.get("WARC-Type") is None or stated is None:
        return "bad_header", "record without WARC-Type or Content-Length; restore the file"
    if not (stated.strip().isascii() and stated.strip().isdigit()):
        return "bad_length", f"Content-Length '{printable(stated)[:40]}' is no length; restore the file"
    return None


def _kind_of(reason: str) -> str:
    """Return the kind of damage that a parser's words mean."""
    reason = reason.lower()
    if any(word in reason for word in ("incomplete", "truncated", "unexpected end", "cut short")):
        return "truncated"
    return "bad_header" if "header" in reason else "bad_compression"


def _address(record: Any) -> str | None:
    url = record.headers.get("WARC-Target-URI")
    return url.strip().removeprefix("<").removesuffix(">") if url else None  # some crawlers write <http://…>
