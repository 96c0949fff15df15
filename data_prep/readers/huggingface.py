"""One document a row of a Hugging Face dataset, streamed."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.document import Document
from data_prep.funnel import Funnel
from data_prep.readers.found import find_files
from gptdist.config.prep import HuggingFaceSource
from gptdist.errors import DataError

_BUILDERS = (("parquet", ("**/*.parquet",)), ("json", ("**/*.jsonl", "**/*.json", "**/*.jsonl.gz", "**/*.jsonl.zst")))
"""What a folder that ``save_to_disk`` did not write may hold, and which builder reads it."""


class HuggingFaceReader:
    """Read a ``huggingface`` source: a folder on this disk if there is one of that name, else a dataset of the hub.

    Args:
        section: the source.
        where: what to put before an error.
        skip_bad_encoding: count texts that are not Unicode (lone surrogates) instead of stopping.

    Raises:
        DataError: it looks like a path, but nothing is there.
    """

    def __init__(self, section: HuggingFaceSource, *, where: str, skip_bad_encoding: bool) -> None:
        self._section = section
        self._where = where
        self._skip = skip_bad_encoding
        self._path = Path(section.dataset).expanduser()
        looks_local = section.dataset.startswith(("/", ".", "~")) or section.dataset.count("/") > 1
        if looks_local and not self._path.is_dir():
            raise DataError(f"{where}: path '{section.dataset}' does not exist; change dataset")

    def inputs(self) -> list[tuple[str, int]]:
        """Return label and size of every file of a local dataset."""
        if not self._path.is_dir():
            return []
        files = find_files([str(self._path)], include=["**/*"], exclude=[], where=self._where)
        return [(file.label, file.size) for file in files]

    def documents(self, funnel: Funnel) -> Iterator[Document]:
        """Read the rows.

        Raises:
            DataError: the dataset cannot be opened, or a row has no text.
        """
        rows = islice(self._rows(), self._section.max_documents)
        for number, row in enumerate(rows):
            document = self._document(number, row)
            try:
                document.utf8  # noqa: B018 - encodes, which fails for a lone surrogate
            except UnicodeEncodeError:
                if not self._skip:
                    raise DataError(
                        f"{self._place(number)}: not Unicode text (a lone surrogate); "
                        "mend the row, or set on_bad_encoding: skip"
                    ) from None
                funnel.refuse("bad_encoding", len(document.text))
                continue
            yield document

    def _document(self, number: int, row: dict[str, Any]) -> Document:
        section = self._section
        text = row.get(section.text_key)
        if not isinstance(text, str):
            columns = ", ".join(row)
            raise DataError(
                f"{self._place(number)}: no string in column '{section.text_key}' (columns: {columns}); set text_key"
            )
        url = row.get(section.url_key) if section.url_key is not None else None
        return Document(text, section.dataset, record=number, url=url if isinstance(url, str) else None)

    def _place(self, number: int) -> str:
        return f"{self._where}: {self._section.dataset}, row {number}"

    def _rows(self) -> Iterable[dict[str, Any]]:
        """Open the dataset; whatever the library raises, its text is what there is to say."""
        try:
            yield from self._open()
        except DataError:
            raise
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"{self._where}: dataset '{self._section.dataset}' cannot be read ({reason}); "
                "check its name, subset and split, and the network"
            ) from None

    def _open(self) -> Iterable[dict[str, Any]]:
        import datasets

        section = self._section
        if not self._path.is_dir():
            return datasets.load_dataset(
                section.dataset, section.subset, split=section.split, streaming=section.streaming
            )
        if (self._path / "dataset_dict.json").is_file():
            saved = datasets.load_from_disk(str(self._path))
            if section.split not in saved:
                raise DataError(
                    f"{self._where}: '{section.dataset}' has no split '{section.split}', "
                    f"only {', '.join(sorted(saved))}; set split"
                )
            return saved[section.split]
        if (self._path / "state.json").is_file():
            return datasets.load_from_disk(str(self._path))  # memory-mapped: rows are read as they are asked for
        return self._open_folder(datasets)

    def _open_folder(self, datasets: Any) -> Iterable[dict[str, Any]]:
        for builder, patterns in _BUILDERS:
            files = sorted({str(file) for pattern in patterns for file in self._path.glob(pattern)})
            if files:
                return datasets.load_dataset(builder, data_files=files, split="train", streaming=True)
        raise DataError(
            f"{self._where}: '{self._section.dataset}' holds no saved dataset and no .parquet, .json or .jsonl file; "
            "change dataset"
        )
