"""One document a row of a Hugging Face dataset."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.account import Account
from data_prep.document import Document
from data_prep.readers.accept import accept_field, is_too_large
from data_prep.readers.found import FoundFile, find_files
from data_prep.readers.source_files import piece_bytes
from data_prep.readers.storage import first_line, is_url, version_of
from data_prep.work import Piece
from gptdist.config.prep import PrepConfig
from gptdist.config.prep_sources import HuggingFaceSource
from gptdist.errors import DataError

_BUILDERS = (("parquet", ("**/*.parquet",)), ("json", ("**/*.jsonl", "**/*.json", "**/*.jsonl.gz", "**/*.jsonl.zst")))
"""What a folder that ``save_to_disk`` did not write may hold, and which builder reads it."""

_SAVED, _SAVED_SPLITS = "state.json", "dataset_dict.json"


class HuggingFaceReader:
    """Read a ``huggingface`` source: a folder on this disk if there is one of that name, else a dataset of the hub.

    Args:
        section: the source.
        config: the run.
        where: what to put before an error.
    """

    def __init__(self, section: HuggingFaceSource, config: PrepConfig, where: str) -> None:
        self._section = section
        self._where = where
        self._path = Path(section.dataset).expanduser()
        self._piece_bytes = piece_bytes(section, config)
        self._max_record_bytes = config.max_record_bytes

    def pieces(self) -> list[Piece]:
        """Return a saved dataset cut by rows; anything else is one piece.

        Raises:
            DataError: it looks like a path, but no dataset is there.
        """
        return self._pieces

    def versions(self) -> list[str]:
        """Return label and version of every file of a local dataset; the hub's are not known."""
        return [f"{file.label} {version_of(file.path)}" for file in self._files]

    def documents(self, pieces: Sequence[Piece], account: Account) -> Iterator[Document]:
        """Read the rows.

        Raises:
            DataError: the dataset cannot be opened, or has no such column.
        """
        for piece in pieces:
            for number, row in enumerate(self._rows(piece), start=piece.begin):
                document = self._document(number, row, account)
                if document is not None:
                    yield document

    @cached_property
    def _files(self) -> list[FoundFile]:
        name = self._section.dataset
        looks_local = name.startswith(("/", ".", "~")) or (name.count("/") > 1 and not is_url(name))
        if self._path.is_dir():
            return find_files([str(self._path)], include=["**/*"], exclude=[], where=self._where)
        if looks_local:
            raise DataError(f"{self._where}: path '{name}' does not exist; change dataset")
        return []

    @cached_property
    def _pieces(self) -> list[Piece]:
        name, size = self._section.dataset, sum(file.size for file in self._files)
        if not self._is_saved():
            return [Piece(name, name, size)]
        dataset = self._saved()
        self._check_columns(dataset.column_names)
        rows = min(len(dataset), self._section.max_documents or len(dataset))
        row_bytes = max(1.0, size / max(1, len(dataset)))
        step = max(1, int(self._piece_bytes / row_bytes))
        return [
            Piece(name, name, round((end - begin) * row_bytes), begin, end, begin)
            for begin in range(0, rows, step)
            for end in (min(rows, begin + step),)
        ]

    def _document(self, number: int, row: dict[str, Any], account: Account) -> Document | None:
        section, place = self._section, f"{self._section.dataset}, row {number}"
        if section.text_key not in row:
            self._check_columns(list(row))
        text = row.get(section.text_key)
        if not isinstance(text, str | bytes):
            account.damaged("no_text", place, f"no text in column '{section.text_key}'; mend the row, or set text_key")
            return None
        if is_too_large(len(text), self._max_record_bytes, place, account):
            return None
        url = row.get(section.url_key) if section.url_key is not None else None
        origin = Document("", section.dataset, record=number, url=url if isinstance(url, str) else None)
        return accept_field(text, section.format == "html", origin, place, account)

    def _check_columns(self, columns: Sequence[str]) -> None:
        """Refuse a dataset without the columns.

        Raises:
            DataError: it lacks one.
        """
        section = self._section
        for setting, name in (("text_key", section.text_key), ("url_key", section.url_key)):
            if name is not None and name not in columns:
                known = ", ".join(columns)
                raise DataError(
                    f"{self._where}: {section.dataset}: no column '{name}' (columns: {known}); set {setting}"
                )

    def _rows(self, piece: Piece) -> Iterator[dict[str, Any]]:
        """Open the dataset; whatever the library raises, its text is what there is to say."""
        try:
            if self._is_saved():
                dataset = self._saved()
                yield from dataset.select(range(piece.begin, len(dataset) if piece.end is None else piece.end))
            else:
                yield from islice(self._open(), self._section.max_documents)
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{self._where}: dataset '{self._section.dataset}' cannot be read ({first_line(error)}); "
                "check its name, subset and split, and the network"
            ) from None

    def _is_saved(self) -> bool:
        return any((self._path / name).is_file() for name in (_SAVED, _SAVED_SPLITS))

    def _saved(self) -> Any:
        """Return a dataset that ``save_to_disk`` wrote, memory-mapped: rows are read as they are asked for."""
        import datasets

        section = self._section
        saved = datasets.load_from_disk(str(self._path))
        if not (self._path / _SAVED_SPLITS).is_file():
            return saved
        if section.split not in saved:
            raise DataError(
                f"{self._where}: '{section.dataset}' has no split '{section.split}', "
                f"only {', '.join(sorted(saved))}; set split"
            )
        return saved[section.split]

    def _open(self) -> Iterable[dict[str, Any]]:
        import datasets

        section = self._section
        if not self._path.is_dir():
            return datasets.load_dataset(
                section.dataset, section.subset, split=section.split, streaming=section.streaming
            )
        for builder, patterns in _BUILDERS:
            files = sorted({str(file) for pattern in patterns for file in self._path.glob(pattern)})
            if files:
                return datasets.load_dataset(builder, data_files=files, split="train", streaming=True)
        raise DataError(
            f"{self._where}: '{section.dataset}' holds no saved dataset and no .parquet, .json or .jsonl file; "
            "change dataset"
        )
