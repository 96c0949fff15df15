"""Tokenized documents of an input shard, sorted: what a later task reads a range of keys from.

A *run* is two files a split: ``train-00000.tokens``, tokens in the shards' dtype, and ``train-00000.arrow``, one
uncompressed record batch with a row a document, both in the order of (key, row). A run ends when its tokens or its rows
fill a stated amount of memory, so most input shards are one run, and one that unpacks to any size is many.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

SPLITS = ("train", "validation")
ORIGIN_COLUMNS = ("path", "record", "offset", "url", "language", "digest")
RUN_SCHEMA = pa.schema(
    [
        pa.field("key", pa.uint64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("first_token", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("text_bytes", pa.int64(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("record", pa.int64(), nullable=False),
        pa.field("offset", pa.int64()),
        pa.field("url", pa.string()),
        pa.field("language", pa.string()),
        pa.field("digest", pa.binary(16), nullable=False),
    ]
)
_RUN_TOKENS_BYTES = 96 << 20
_RUN_ROWS_BYTES = 64 << 20
_WRITE_BYTES = 1 << 23


@dataclass(frozen=True)
class RunFile:
    """One split of a run."""

    folder: Path
    split: str
    number: int

    @property
    def tokens_path(self) -> Path:
        """The tokens."""
        return self.folder / f"{self.split}-{self.number:05d}.tokens"

    @property
    def rows_path(self) -> Path:
        """The documents."""
        return self.folder / f"{self.split}-{self.number:05d}.arrow"

    @contextmanager
    def rows(self) -> Iterator[Any]:
        """Give the record batch of ``RUN_SCHEMA``, mapped: what is taken out of it has to be copied."""
        with pa.memory_map(str(self.rows_path)) as source, pa.ipc.open_file(source) as reader:
            yield reader.get_batch(0)


class RunWriter:
    """Collect tokenized documents and write them as runs.

    Args:
        folder: where the files go.
        dtype: of the tokens.
        run_tokens_bytes: tokens that are held in memory before a run is written.
        run_rows_bytes: likewise for what else is known of the documents.
    """

    def __init__(
        self,
        folder: Path,
        dtype: np.dtype,
        *,
        run_tokens_bytes: int = _RUN_TOKENS_BYTES,
        run_rows_bytes: int = _RUN_ROWS_BYTES,
    ) -> None:
        self._folder, self._dtype = folder, dtype
        self._capacity = run_tokens_bytes // dtype.itemsize
        self._rows_bytes = run_rows_bytes
        self._tokens = np.empty(0, dtype=dtype)
        self._used = 0
        self._rows: list[Any] = []
        self._validation: list[np.ndarray] = []
        self.runs = dict.fromkeys(SPLITS, 0)
        """Runs written of each split."""

    def room(self, count: int) -> np.ndarray:
        """Return an array for ``count`` tokens, to be filled and then made part of the run by ``append``."""
        if self._used and self._used + count > self._capacity:
            self.flush()
        if self._used + count > self._tokens.size:
            assert self._used == 0, "the array is as large as a run from its first batch on"
            self._tokens = np.empty(max(self._capacity, count), dtype=self._dtype)  # untouched pages cost nothing
        return self._tokens[self._used : self._used + count]

    def append(self, batch: Any, lengths: np.ndarray, text_bytes: np.ndarray) -> None:
        """Add documents whose tokens are in the ``room`` that was given last.

        Args:
            batch: record batch with key, validation, row and ``ORIGIN_COLUMNS``.
            lengths: tokens of each, int64, end-of-document included.
            text_bytes: UTF-8 bytes of each, int64.
        """
        first = self._used + np.cumsum(lengths) - lengths
        columns = {name: batch.column(name) for name in ("key", "row", *ORIGIN_COLUMNS)}
        columns |= {"first_token": pa.array(first), "tokens": pa.array(lengths), "text_bytes": pa.array(text_bytes)}
        self._rows.append(pa.RecordBatch.from_pydict(columns, schema=RUN_SCHEMA))
        self._validation.append(batch.column("validation").to_numpy(zero_copy_only=False))
        self._used += int(lengths.sum())
        if self._used >= self._capacity or sum(rows.nbytes for rows in self._rows) >= self._rows_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what is held as a run of each split that has documents."""
        if not self._rows:
            return
        rows = pa.Table.from_batches(self._rows).combine_chunks()
        keys, validation = rows.column("key").to_numpy(), np.concatenate(self._validation)
        for split in SPLITS:
            chosen = np.flatnonzero(validation == (split == "validation"))
            if chosen.size:
                self._write(split, rows.take(pa.array(chosen[np.argsort(keys[chosen], kind="stable")])))
        self._used, self._rows, self._validation = 0, [], []

    def _write(self, split: str, rows: Any) -> None:
        run = RunFile(self._folder, split, self.runs[split])
        self.runs[split] += 1
        first, lengths = rows.column("first_token").to_numpy(), rows.column("tokens").to_numpy()
        with run.tokens_path.open("wb") as file:
            for part in gathered(self._tokens, first, lengths):
                file.write(part)
        sorted_first = pa.array(np.cumsum(lengths) - lengths)
        position = RUN_SCHEMA.get_field_index("first_token")
        rows = rows.set_column(position, RUN_SCHEMA.field(position), sorted_first).combine_chunks()
        with pa.ipc.new_file(str(run.rows_path), RUN_SCHEMA) as writer:
            writer.write_batch(rows.to_batches()[0])


def gathered(tokens: np.ndarray, first: np.ndarray, lengths: np.ndarray) -> Iterator[bytes]:
    """Yield the bytes of the ranges of ``tokens``, joined, in parts of some megabytes.

    Slices of a memory view: a range costs 0.2 µs, and nothing a token beyond the copy.
    """
    size = tokens.itemsize
    view = tokens.view(np.uint8).data
    begins, ends = first * size, (first + lengths) * size
    borders = [0, *part_borders(lengths * size, _WRITE_BYTES)]
    for begin, end in pairwise(borders):
        pairs = zip(begins[begin:end].tolist(), ends[begin:end].tolist(), strict=True)
        yield b"".join([view[low:high] for low, high in pairs])


def part_borders(sizes: np.ndarray, part_size: int) -> list[int]:
    """Cut consecutive things of ``sizes`` into parts of about ``part_size``; return the end of each part."""
    total = np.cumsum(sizes)
    borders: list[int] = []
    done = 0
    while done < sizes.size:
        before = int(total[done - 1]) if done else 0
        done = max(done + 1, int(np.searchsorted(total, before + part_size, side="right")))
        borders.append(done)
    return borders


def runs_of(folders: Sequence[Path], counts: Sequence[int], split: str) -> list[RunFile]:
    """Return the runs of a split in folders of finished tasks, in the order in which the first of equal keys wins.

    Args:
        folders: of the tasks.
        counts: runs of the split in each.
        split: ``"train"`` or ``"validation"``.
    """
    pairs = zip(folders, counts, strict=True)
    return [RunFile(folder, split, number) for folder, count in pairs for number in range(count)]
