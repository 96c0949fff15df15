"""One document a file."""

from collections.abc import Iterator, Sequence

from data_prep.account import Account
from data_prep.document import Document
from data_prep.readers.accept import accept_page, accept_utf8, is_too_large
from data_prep.readers.source_files import SourceFiles
from data_prep.readers.storage import open_file
from data_prep.work import Piece
from gptdist.config.prep import PrepConfig
from gptdist.config.prep_sources import FilesSource

_HTML_SUFFIXES = (".html", ".htm", ".xhtml")


class FilesReader:
    """Read the text files and pages of a ``files`` source.

    Args:
        section: the source.
        config: the run.
        where: what to put before an error.
    """

    def __init__(self, section: FilesSource, config: PrepConfig, where: str) -> None:
        self._files = SourceFiles(section, config, where, include=section.include, exclude=section.exclude)
        self._max_file_bytes = section.max_file_bytes
        self._max_record_bytes = config.max_record_bytes

    def pieces(self) -> list[Piece]:
        """Return every file as one piece."""
        return self._files.whole()

    def versions(self) -> list[str]:
        """Return label and version of every file."""
        return self._files.versions()

    def documents(self, pieces: Sequence[Piece], account: Account) -> Iterator[Document]:
        """Read the files.

        Raises:
            DataError: one cannot be read.
        """
        for piece in pieces:
            document = self._document(piece, account)
            if document is not None:
                yield document

    def _document(self, piece: Piece, account: Account) -> Document | None:
        origin, limit = Document("", piece.label), self._max_file_bytes
        if limit is not None and piece.size > limit:
            account.drop(origin, "read", "file_too_large", file_bytes=piece.size, max_file_bytes=limit)
            return None
        if is_too_large(piece.size, self._max_record_bytes, piece.label, account):
            return None
        with open_file(piece.path) as file:
            content = file.read()
        if piece.path.lower().endswith(_HTML_SUFFIXES):
            return accept_page(content, None, origin, account)
        return accept_utf8(content, origin, piece.label, account)
