"""The folder ``account/`` of a finished run."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.card.rows import rows_file_name, shard_of
from gptdist.errors import DataError

FOLDER_NAME = "account"
SUMMARY_NAME = "summary.json"
_BATCH_ROWS = 1 << 16
"""Rows in memory at a time, whatever the corpus: a few dozen MB."""


@dataclass(frozen=True)
class RowsFile:
    """The rows of an input shard."""

    path: Path
    source: str
    shard: int

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield the rows as record batches of ``columns``.

        Raises:
            DataError: the file is damaged.
        """
        try:
            with pq.ParquetFile(self.path) as file:
                yield from file.iter_batches(_BATCH_ROWS, columns=list(columns))
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{self.path}: cannot be read ({str(error).splitlines()[0]}); restore it, or remove the output folder "
                "and prepare again"
            ) from None

    def document(self, number: int, columns: Sequence[str]) -> dict[str, Any] | None:
        """Return the row of one document, by its ``document``."""
        for batch in self.batches([*columns, "document"]):
            found = batch.filter(pa.compute.equal(batch.column("document"), number))
            if found.num_rows:
                return dict(found.to_pylist()[0])
        return None


class AccountFolder:
    """A finished run's account.

    Args:
        output_dir: the run's ``output_dir``.

    Raises:
        DataError: the folder is no finished run, or its account is damaged or not whole.
    """

    def __init__(self, output_dir: Path) -> None:
        self.folder = output_dir / FOLDER_NAME
        self.summary = _read_summary(self.folder / SUMMARY_NAME)
        found = [(path, shard_of(path.name)) for path in sorted(self.folder.glob("*.parquet"))]
        files = [RowsFile(path, *parts) for path, parts in found if parts is not None]
        self.files = sorted(files, key=lambda file: (file.shard, file.source))
        self._by_shard = {file.shard: file for file in self.files}
        present = {file.path.name for file in self.files}
        for source in self.summary["sources"]:
            for shard in source["shards"]:
                name = rows_file_name(source["name"], shard)
                if name not in present:
                    raise DataError(f"{self.folder / name}: missing; restore it, or prepare the data again")

    def document(self, shard: int, number: int, columns: Sequence[str]) -> dict[str, Any] | None:
        """Return a row by the number of its shard and its ``document``; None where there is no such row."""
        file = self._by_shard.get(shard)
        return None if file is None else file.document(number, columns)


def _read_summary(path: Path) -> dict[str, Any]:
    try:
        summary = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"{path}: missing, so the folder is no finished run; finish it with 'gptdist prep run', or change the path"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore it, or change the path") from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); prepare the data again") from None
    if not isinstance(summary, dict) or not isinstance(summary.get("sources"), list):
        raise DataError(f"{path}: has no 'sources', so it is no account of gptdist; prepare the data again")
    return summary
