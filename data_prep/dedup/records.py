"""Files of sorted records: how tasks over parts of the corpus meet without a process that sees all of it.

A file holds columns of equal length, one after the other, sorted by the first, which is 64-bit: a hash or a document.
A task over a range of the first column maps every file and takes its range only, so what it holds in memory depends
on the range, not on the corpus.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_ROW_BITS = 32


def document_ids(shard: int, rows: Array) -> Array:
    """Return the 64-bit numbers of documents: input shard above row, so that they sort in corpus order."""
    return rows.astype(np.uint64) | np.uint64(shard << _ROW_BITS)


def shard_and_row(document: int) -> tuple[int, int]:
    """Return the input shard and the row of a document's number."""
    return document >> _ROW_BITS, document & ((1 << _ROW_BITS) - 1)


def shard_range(shard: int) -> tuple[int, int]:
    """Return the range of the numbers of a shard's documents, the end exclusive."""
    return shard << _ROW_BITS, (shard + 1) << _ROW_BITS


def hash_range(rank: int, world_size: int) -> tuple[int, int]:
    """Return the hashes that task ``rank`` looks after, the end exclusive."""
    return (rank << 64) // world_size, ((rank + 1) << 64) // world_size


def num_ranges(total: int, per_range: int) -> int:
    """Return into how many ranges to cut ``total`` records: a function of the corpus, never of who works on it."""
    return max(1, -(-total // per_range))


def write_records(path: Path, columns: Sequence[Array]) -> None:
    """Write columns that are sorted by the first."""
    with path.open("wb") as file:
        for column in columns:
            np.ascontiguousarray(column).tofile(file)


def map_records(path: Path, types: Sequence[str]) -> list[Array]:
    """Return the columns of a file, mapped; nothing is read until it is looked at."""
    dtypes = [np.dtype(name) for name in types]
    size = path.stat().st_size
    count = size // sum(dtype.itemsize for dtype in dtypes)
    if not count:
        return [np.empty(0, dtype) for dtype in dtypes]
    content = np.memmap(path, dtype=np.uint8, mode="r")
    columns, begin = [], 0
    for dtype in dtypes:
        end = begin + count * dtype.itemsize
        columns.append(np.asarray(content[begin:end]).view(dtype))
        begin = end
    return columns


def read_range(path: Path, types: Sequence[str], bounds: tuple[int, int]) -> list[Array]:
    """Return the records whose first column, ``u8``, is in ``bounds``, copied into memory."""
    columns = map_records(path, types)
    begin = int(np.searchsorted(columns[0], np.uint64(bounds[0])))
    # 2 ** 64, the end of the last range, has no 64-bit number
    end = len(columns[0]) if bounds[1] >> 64 else int(np.searchsorted(columns[0], np.uint64(bounds[1])))
    return [np.array(column[begin:end]) for column in columns]
