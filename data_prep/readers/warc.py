"""One document a record of a web archive: pages of WARC files, texts of WET files."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from fastwarc.warc import WarcRecordType

from data_prep.account import Account
from data_prep.document import Document
from data_prep.readers.accept import accept_page, accept_utf8, is_too_large
from data_prep.readers.found import FoundFile
from data_prep.readers.http_body import BodyError, decode_body
from data_prep.readers.lines import codec_of
from data_prep.readers.source_files import SourceFiles
from data_prep.readers.storage import printable
from data_prep.readers.warc_records import WarcEntry, WarcRecords
from data_prep.work import Piece
from gptdist.config.prep import PrepConfig
from gptdist.config.prep_sources import WarcSource

_PATTERNS = tuple(f"**/*.{kind}{packed}" for kind in ("warc", "wet") for packed in ("", ".gz", ".zst"))
_PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_MEDIA_TYPE = re.compile(r"(?:application|audio|font|image|message|model|multipart|text|video)/[a-z0-9.+-]{1,60}")


class WarcReader:
    """Read the files of a ``warc`` source.

    Args:
        section: the source.
        config: the run.
        where: what to put before an error.
    """

    def __init__(self, section: WarcSource, config: PrepConfig, where: str) -> None:
        self._files = SourceFiles(section, config, where, include=_PATTERNS)
        self._max_record_bytes = config.max_record_bytes

    def pieces(self) -> list[Piece]:
        """Return the files; those whose records are compressed one by one, by their names, are cut anywhere.

        Nothing is looked into: whoever reads a part finds its first record.
        """
        return [piece for file in self._files.files for piece in self._cut(file)]

    def _cut(self, file: FoundFile) -> Iterator[Piece]:
        step = self._files.piece_bytes if codec_of(file.path) is not None else file.size
        for begin in range(0, max(1, file.size), max(1, step)):
            end = begin + step
            yield Piece(file.path, file.label, min(end, file.size) - begin, begin, end if end < file.size else None)

    def versions(self) -> list[str]:
        """Return label and version of every file."""
        return self._files.versions()

    def documents(self, pieces: Sequence[Piece], account: Account) -> Iterator[Document]:
        """Read the records.

        Raises:
            DataError: a file cannot be read.
        """
        for piece in pieces:
            wants = _Selection(account).wants
            for entry in WarcRecords(piece, self._max_record_bytes, account, wants).entries():
                document = self._document(piece.label, entry, account)
                if document is not None:
                    yield document

    def _document(self, label: str, entry: WarcEntry, account: Account) -> Document | None:
        content = entry.content or b""
        origin = Document("", label, record=entry.offset, offset=entry.offset, url=entry.url)
        place = f"{label}, byte {entry.offset}"
        if not entry.is_response:
            return accept_utf8(content, origin, place, account)
        limit = self._max_record_bytes
        try:
            content = decode_body(content, entry.transfer_encoding, entry.content_encoding, limit)
        except BodyError as error:
            account.damaged("bad_body", place, f"page cannot be decoded ({printable(str(error))}); restore the file")
            return None
        if is_too_large(len(content), limit, place, account):
            return None
        return accept_page(content, entry.charset, origin, account)


class _Selection:
    """Choose the records that are documents, and count the others by what they are."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def wants(self, record: Any) -> bool:
        """Whether the record is a page or a text."""
        kind = record.record_type
        if kind == WarcRecordType.conversion:
            media = (record.headers.get("Content-Type") or "text/plain").partition(";")[0].strip().lower()
            return self._is(media == "text/plain", media)
        if kind != WarcRecordType.response:
            return self._is(False, str(kind))
        if not record.is_http:
            return self._is(False, "response_not_http")
        status = record.http_headers.status_code
        if status is None or not 200 <= status < 300:
            return self._is(False, f"http_{status if status is not None and 100 <= status < 600 else 'none'}")
        media = record.http_content_type or record.headers.get("WARC-Identified-Payload-Type") or "no_media_type"
        if record.headers.get("WARC-Truncated"):
            self._account.count("read.warc_truncated")
        return self._is(media.lower() in _PAGE_TYPES, media.lower())

    def _is(self, wanted: bool, name: str) -> bool:
        if not wanted:
            # Names come from servers: what is no media type must not become a name of its own.
            known = "/" not in name or _MEDIA_TYPE.fullmatch(name)
            self._account.count(f"read.{name if known else 'unknown_media_type'}")
        return wanted
