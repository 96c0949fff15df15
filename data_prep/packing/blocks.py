"""The documents of one output shard, gathered from all runs of its source in key order, a block in memory at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from data_prep.packing.runs import RUN_SCHEMA, RunFile, part_borders
from gptdist.errors import DataError

BLOCK_TOKENS = 1 << 24
"""Tokens of a block, 32 or 64 MiB; one document may be more."""


@dataclass(frozen=True)
class Block:
    """Consecutive documents of a shard."""

    tokens: np.ndarray
    """All tokens, in the order in which they were read."""

    rows: Any
    """A pyarrow table of ``RUN_SCHEMA`` in key order; ``first_token`` is the place in ``tokens``."""


@dataclass(frozen=True)
class _Part:
    """What one run has of the shard."""

    run: RunFile
    begin: int
    keys: np.ndarray
    tokens: np.ndarray


def key_order_blocks(
    runs: Sequence[RunFile], keys: tuple[int, int], dtype: np.dtype, *, block_tokens: int = BLOCK_TOKENS
) -> Iterator[Block]:
    """Yield the documents whose keys are in a range, in the order of key, then of input shard and row.

    Args:
        runs: of one split of a source, in the order of input shards.
        keys: first key, and the one after the last.
        dtype: of the tokens.
        block_tokens: size of a block; equal keys stay in one.

    Raises:
        DataError: a run's file is shorter than its rows say.
    """
    parts = [part for run in runs if (part := _part(run, *keys)) is not None]
    all_keys = np.concatenate([np.empty(0, np.uint64), *(part.keys for part in parts)])
    order = np.argsort(all_keys, kind="stable")
    all_keys = all_keys[order]
    tokens = np.concatenate([np.empty(0, np.int64), *(part.tokens for part in parts)])[order]
    previous = 0
    for border in part_borders(tokens, block_tokens):
        end = int(np.searchsorted(all_keys, all_keys[border - 1], side="right"))
        if end > previous:
            low, high = all_keys[previous], all_keys[end - 1]
            yield _block(parts, low, high, int(tokens[previous:end].sum()), dtype)
            previous = end


def _part(run: RunFile, key_begin: int, key_end: int) -> _Part | None:
    with run.rows() as rows:
        keys = rows.column("key").to_numpy()
        begin = int(np.searchsorted(keys, np.uint64(key_begin)))
        end = len(keys) if key_end >= 1 << 64 else int(np.searchsorted(keys, np.uint64(key_end)))
        if begin == end:
            return None
        return _Part(run, begin, keys[begin:end].copy(), rows.column("tokens").to_numpy()[begin:end].copy())


def _block(parts: Sequence[_Part], low: np.uint64, high: np.uint64, size: int, dtype: np.dtype) -> Block:
    tokens = np.empty(size, dtype=dtype)
    batches = []
    filled = 0
    for part in parts:
        begin = int(np.searchsorted(part.keys, low))
        end = int(np.searchsorted(part.keys, high, side="right"))
        if begin < end:
            rows, count = _read(part, begin, end, filled, tokens)
            batches.append(rows)
            filled += count
    assert filled == size, f"{filled} tokens gathered, {size} counted"
    rows = pa.Table.from_batches(batches).combine_chunks()
    order = np.argsort(rows.column("key").to_numpy(), kind="stable")
    return Block(tokens, rows.take(pa.array(order)))


def _read(part: _Part, begin: int, end: int, filled: int, tokens: np.ndarray) -> tuple[Any, int]:
    """Read documents ``begin`` … ``end`` of the part into ``tokens``; return their rows and the number of tokens."""
    count = int(part.tokens[begin:end].sum())
    with part.run.rows() as mapped:
        chosen = pa.array(np.arange(part.begin + begin, part.begin + end))
        rows = mapped.take(chosen)  # a copy: the map is closed
    first = int(rows.column("first_token")[0].as_py())
    into = tokens[filled : filled + count].view(np.uint8).data
    with part.run.tokens_path.open("rb") as file:
        file.seek(first * tokens.itemsize)
        if file.readinto(into) != into.nbytes:
            raise DataError(f"{part.run.tokens_path}: ends early; remove the work folder, and run again")
    position = RUN_SCHEMA.get_field_index("first_token")
    placed = rows.column("first_token").to_numpy() - first + filled
    return rows.set_column(position, RUN_SCHEMA.field(position), pa.array(placed)), count
