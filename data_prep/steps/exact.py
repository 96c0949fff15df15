"""Documents whose text stands earlier in the corpus.

A task of records holds 60 bytes a document of its shard, a task of a range 60 bytes a text of its range (240 MB). A
text comes to its range once a shard, however often the shard has it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.dedup.records import Array, document_ids, hash_range, num_ranges, read_range, write_records
from data_prep.dedup.removals import REMOVED_NAME, REPEATS_NAME
from data_prep.document import Place
from data_prep.kept_file import read_batches
from data_prep.work import Work

_FIRSTS_NAME = "firsts.records"
_FIRSTS_TYPES = ("u8", "u8", "u4")
"""Upper and lower half of a text's digest, and the row that has it first in the shard."""


@dataclass
class ExactRecords:
    """Sort the digests of a shard's texts."""

    name: str = "exact_records"

    def num_tasks(self, work: Work) -> int:
        """Return the number of input shards."""
        return work.num_shards

    def run(self, work: Work, place: Place, folder: Path) -> Mapping[str, Any]:
        """Write each text's digest with its first row, and the rows that repeat one."""
        high, low = _halves(work.task_folder("documents", place.rank))
        rows = np.lexsort((low, high))  # stable: equal texts stay in the order of their rows
        high, low = high[rows], low[rows]
        earliest = _run_begins(high, low)
        is_first = earliest == np.arange(len(rows))
        write_records(folder / _FIRSTS_NAME, (high[is_first], low[is_first], rows[is_first].astype("u4")))
        repeats, firsts = rows[~is_first], rows[earliest[~is_first]]
        order = np.argsort(repeats)
        write_records(folder / REPEATS_NAME, (repeats[order].astype("u8"), firsts[order].astype("u8")))
        return {"tasks": place.world_size, "texts": int(is_first.sum()), "repeated_in_shard": len(repeats)}


@dataclass
class Exact:
    """Find the texts that several shards have, a range of digests a task."""

    texts_per_range: int = 1 << 22
    name: str = "exact"

    def num_tasks(self, work: Work) -> int:
        """Return the number of ranges."""
        texts = sum(work.marker("exact_records", shard)["texts"] for shard in range(work.num_shards))
        return num_ranges(texts, self.texts_per_range)

    def run(self, work: Work, place: Place, folder: Path) -> Mapping[str, Any]:
        """Write the documents that go, and for each the one that stays."""
        bounds = hash_range(place.rank, place.world_size)
        parts = [(np.empty(0, "u8"),) * 3]
        for shard in range(work.num_shards):
            path = work.task_folder("exact_records", shard) / _FIRSTS_NAME
            high, low, rows = read_range(path, _FIRSTS_TYPES, bounds)
            parts.append((high, low, document_ids(shard, rows)))
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        documents, keepers = _later_and_first(*columns)
        order = np.argsort(documents)
        write_records(folder / REMOVED_NAME, (documents[order], keepers[order]))
        return {"tasks": place.world_size, "removed": len(documents)}


def _halves(folder: Path) -> tuple[Array, Array]:
    """Both halves of every document's digest, as integers that sort as its bytes do."""
    parts = [np.empty((0, 2), dtype=np.uint64)]
    for batch in read_batches(folder, ("digest",)):
        column = batch.column("digest")
        halves = np.frombuffer(column.buffers()[1], dtype=">u8")
        parts.append(halves[2 * column.offset :][: 2 * len(column)].reshape(-1, 2).astype(np.uint64))
    both = np.concatenate(parts)
    return both[:, 0], both[:, 1]


def _run_begins(high: Array, low: Array) -> Array:
    """For each of sorted records the index of the first one that equals it."""
    differs = np.ones(len(high), dtype=np.bool_)
    differs[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return np.maximum.accumulate(np.where(differs, np.arange(len(high)), 0))


def _later_and_first(high: Array, low: Array, documents: Array) -> tuple[Array, Array]:
    """Return the documents that have an equal one before them, and the first of those; ``documents`` ascends."""
    order = np.argsort(high, kind="stable")
    ordered = high[order]
    meets = np.zeros(len(order), dtype=np.bool_)
    equal = ordered[1:] == ordered[:-1]
    meets[1:] |= equal
    meets[:-1] |= equal
    order = order[meets]  # few: only these are compared in full
    order = order[np.lexsort((low[order], high[order]))]
    earliest = _run_begins(high[order], low[order])
    later = earliest != np.arange(len(order))
    return documents[order[later]], documents[order[earliest[later]]]
