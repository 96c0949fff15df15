"""What the later steps see of a shard once repetitions are out: the surviving documents, their text cut.

The dedup steps never rewrite a text; they leave lists of what goes, and ``surviving`` applies them on the way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from data_prep.dedup.cutting import cut_texts
from data_prep.dedup.records import Array, document_ids, map_records, read_range, shard_and_row, shard_range
from data_prep.kept_file import read_batches
from data_prep.work import Work

RULES = ("exact", "lines", "near")
"""Why a document is gone, in the order in which the steps look at it."""

REMOVED_NAME = "removed.records"
REMOVED_TYPES = ("u8", "u8")
"""Document and the document that is kept in its place."""
NEAR_TYPES = (*REMOVED_TYPES, "f4")
"""For near-duplicates also how similar the two are."""

REPEATS_NAME = "repeats.records"
REPEATS_TYPES = ("u8", "u8")
"""Row and the first row of the same shard with the same text."""

CUTS_NAME = "cuts.records"
CUTS_TYPES = ("u8", "u8", "u8")
"""Row, first byte of its UTF-8 text that is cut, first byte after."""

LEFT_NAME = "left.records"
LEFT_TYPES = ("u8", "u8")
"""Row of a document that is dropped for what the cuts left of it, and the characters left."""


REMOVED = np.dtype([("row", "i8"), ("rule", "u1"), ("keeper", "u8"), ("similarity", "f4")])
"""Row, index into ``RULES``, the document that is kept (for ``lines`` the characters left), likeness of the two."""


@dataclass(frozen=True)
class Removals:
    """What goes from a shard."""

    shard: int
    removed: Array
    """Documents that are dropped, of type ``REMOVED``, by row."""

    cut_rows: Array
    """Rows of the bytes that are cut, int64, ascending; the same row may stand here more than once."""

    cut_begins: Array
    cut_ends: Array

    def text_of(self, row: int, text: str) -> str:
        """Return the text of a document without the units that stand earlier in the corpus."""
        first, last = np.searchsorted(self.cut_rows, [row, row + 1])
        if first == last:
            return text
        utf8, kept, end = text.encode(), [], 0
        for span in range(first, last):
            kept.append(utf8[end : self.cut_begins[span]])
            end = int(self.cut_ends[span])
        return b"".join([*kept, utf8[end:]]).decode()

    def apply(self, batch: Any, first_row: int) -> Any:
        """Return the documents of a batch that survive, text cut, with their numbers in the column ``row``."""
        rows = np.arange(first_row, first_row + batch.num_rows)
        batch = batch.append_column("row", pa.array(rows))
        begin, end = np.searchsorted(self.cut_rows, [first_row, first_row + batch.num_rows])
        text = batch.schema.get_field_index("text")
        if begin < end and text >= 0:
            spans = (self.cut_rows[begin:end] - first_row, self.cut_begins[begin:end], self.cut_ends[begin:end])
            batch = batch.set_column(text, batch.schema.field(text), cut_texts(batch.column(text), *spans))
        begin, end = np.searchsorted(self.removed["row"], [first_row, first_row + batch.num_rows])
        if begin == end:
            return batch
        kept = np.ones(batch.num_rows, dtype=np.bool_)
        kept[self.removed["row"][begin:end] - first_row] = False
        return batch.filter(pa.array(kept))


def surviving(work: Work, shard: int, columns: Sequence[str]) -> Iterator[Any]:
    """Yield the documents of a shard that no dedup step removed, in order, as record batches.

    Args:
        work: the run, its dedup steps done.
        shard: input shard.
        columns: columns of ``documents.arrow``; ``text`` comes with repeated units cut out. ``row`` (int64), the number
            of the document in that file, is added at the end. Nothing is copied where nothing is removed.
    """
    return surviving_but_for(work, shard, columns, removals_of(work, shard))


def surviving_but_for(work: Work, shard: int, columns: Sequence[str], removals: Removals) -> Iterator[Any]:
    """Yield what ``surviving`` yields, with some of the removals only."""
    first_row = 0
    for batch in read_batches(work.task_folder("documents", shard), columns):
        survivors = removals.apply(batch, first_row)
        first_row += batch.num_rows
        if survivors.num_rows:
            yield survivors


def removals_of(work: Work, shard: int, rules: Sequence[str] = RULES) -> Removals:
    """Return what the configured dedup steps remove from a shard; with ``rules``, what only these remove."""
    config = work.config.dedup
    gone = [_gone([], [], 0)]
    cuts = [np.empty(0, "u8")] * len(CUTS_TYPES)
    if config.exact and "exact" in rules:
        gone.append(_gone(*_exact(work, shard), RULES.index("exact")))
    if config.lines is not None and "lines" in rules:
        folder = work.task_folder("line_cuts", shard)
        rows, left = map_records(folder / LEFT_NAME, LEFT_TYPES)
        gone.append(_gone(rows, left, RULES.index("lines")))
        cuts = map_records(folder / CUTS_NAME, CUTS_TYPES)
    if config.near is not None and "near" in rules:
        documents, keepers, similarities = removed_in_shard(work, "near_clusters", shard, NEAR_TYPES)
        gone.append(_gone(_rows_of(documents), keepers, RULES.index("near"), similarities))
    removed = np.concatenate(gone)
    removed = removed[np.argsort(removed["row"], kind="stable")]
    return Removals(shard, removed, *(column.astype(np.int64) for column in cuts))


def removal_outcomes(work: Work, shard: int) -> dict[int, tuple[str, dict[str, int | float]]]:
    """Return for each dropped row the rule and its numbers, as the account holds them."""
    outcomes: dict[int, tuple[str, dict[str, int | float]]] = {}
    for row, code, keeper, similarity in removals_of(work, shard).removed.tolist():
        kept_shard, kept_row = shard_and_row(keeper)
        numbers: dict[str, int | float] = {"kept_shard": kept_shard, "kept_row": kept_row}
        if RULES[code] == "lines":
            numbers = {"characters_left": keeper}
        elif RULES[code] == "near":
            numbers["similarity"] = round(similarity, 3)
        outcomes[row] = (RULES[code], numbers)
    return outcomes


def num_documents(work: Work, shard: int) -> int:
    """Return how many documents a shard's ``documents.arrow`` holds."""
    return int(work.marker("documents", shard)["documents"])


def removed_in_shard(work: Work, step: str, shard: int, types: Sequence[str] = REMOVED_TYPES) -> list[Array]:
    """Return the documents of a shard that a step removed, ascending, and what it wrote about each."""
    bounds = shard_range(shard)
    tasks = range(work.marker(step, 0)["tasks"])
    parts = [read_range(work.task_folder(step, task) / REMOVED_NAME, types, bounds) for task in tasks]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return [column[order] for column in columns]


def _gone(rows: Any, keepers: Any, rule: int, similarities: Any = 1.0) -> Array:
    removed = np.empty(len(rows), dtype=REMOVED)
    removed["row"], removed["keeper"], removed["rule"], removed["similarity"] = rows, keepers, rule, similarities
    return removed


def _rows_of(documents: Array) -> Array:
    return documents & np.uint64(0xFFFFFFFF)


def _exact(work: Work, shard: int) -> tuple[Array, Array]:
    """The rows whose text stands earlier, in another shard or in this one, and the documents kept for them."""
    documents, keepers = removed_in_shard(work, "exact", shard)
    rows, first_rows = map_records(work.task_folder("exact_records", shard) / REPEATS_NAME, REPEATS_TYPES)
    kept = document_ids(shard, first_rows)
    if len(documents):  # a repeat's first may itself be gone, for one of an earlier shard
        place = np.minimum(np.searchsorted(documents, kept), len(documents) - 1)
        kept = np.where(documents[place] == kept, keepers[place], kept)
    return np.concatenate([_rows_of(documents), rows]), np.concatenate([keepers, kept])
