"""One document a file."""

from collections.abc import Iterator

from data_prep.document import Document
from data_prep.funnel import Funnel
from data_prep.html_text import html_text
from data_prep.readers.found import FoundFile, find_files, in_random_order
from gptdist.config.prep import FilesSource
from gptdist.errors import DataError

_HTML_SUFFIXES = (".html", ".htm")


class FilesReader:
    """Read the text files of a ``files`` source.

    Args:
        section: the source.
        where: what to put before an error.
        seed: keys which files come first where ``max_bytes`` will cut.
        skip_bad_encoding: count files that are not UTF-8 instead of stopping.

    Raises:
        DataError: a path is missing, or no file matches.
    """

    def __init__(self, section: FilesSource, *, where: str, seed: int, skip_bad_encoding: bool) -> None:
        self._section = section
        self._skip = skip_bad_encoding
        files = find_files(section.paths, include=section.include, exclude=section.exclude, where=where)
        self._files = files if section.max_bytes is None else in_random_order(files, seed)

    def inputs(self) -> list[tuple[str, int]]:
        """Return label and size of every file."""
        return [(file.label, file.size) for file in self._files]

    def documents(self, funnel: Funnel) -> Iterator[Document]:
        """Read the files.

        Raises:
            DataError: one cannot be read, or is not UTF-8 and may not be skipped.
        """
        limit = self._section.max_file_bytes
        for file in self._files:
            if limit is not None and file.size > limit:
                funnel.refuse("file_too_large", file.size)
                continue
            text = self._text(file)
            if text is None:
                funnel.refuse("bad_encoding", file.size)
            else:
                yield Document(text, file.label)

    def _text(self, file: FoundFile) -> str | None:
        try:
            content = file.path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{file.path}: cannot be read ({error.strerror}); make it readable, or exclude it"
            ) from None
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            if self._skip:
                return None
            raise DataError(
                f"{file.path}: not UTF-8 at byte {error.start}; convert it, exclude it, or set on_bad_encoding: skip"
            ) from None
        text = text.removeprefix("\ufeff")
        return html_text(text) if file.path.suffix.lower() in _HTML_SUFFIXES else text
