"""The last step: the account of every document that came in, with what dedup and tokenizing made of it."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.card.rows import read_table, with_later, write_table
from data_prep.dedup.removals import removal_outcomes, removals_of
from data_prep.document import Place
from data_prep.steps import documents
from data_prep.steps.tokenize import NAME as TOKENIZE
from data_prep.steps.tokenize import token_lengths
from data_prep.work import Work

NAME = "account"


class AccountStep:
    """Join the account of the documents step with removals and token counts; one task an input shard."""

    name = NAME

    def num_tasks(self, work: Work) -> int:
        """Return the number of input shards."""
        return work.num_shards

    def run(self, work: Work, place: Place, folder: Path) -> Mapping[str, Any]:
        """Write the shard's rows; the marker counts what dedup dropped, by rule."""
        rows = read_table(work.task_folder(documents.NAME, place.rank) / documents.ROWS_NAME)
        removed = {
            row: (f"dedup.{rule}", numbers) for row, (rule, numbers) in removal_outcomes(work, place.rank).items()
        }
        sizes = _sizes_after_cuts(work, place.rank, rows)
        later = with_later(rows, token_lengths(work, place.rank), removed, sizes)
        write_table(folder / documents.ROWS_NAME, later)
        dropped = Counter(outcome.removeprefix("dedup.") for outcome, _ in removed.values())
        splits = work.marker(TOKENIZE, place.rank)["splits"].values()
        return {
            "dropped": dict(sorted(dropped.items())),
            "bytes_left": sum(split["text_bytes"] for split in splits),
        }


def _sizes_after_cuts(work: Work, shard: int, rows: Any) -> dict[int, int]:
    """Return the bytes that are left of each document from which repeated lines were cut."""
    removals = removals_of(work, shard)
    if not removals.cut_rows.size:
        return {}
    cut = np.bincount(removals.cut_rows, weights=removals.cut_ends - removals.cut_begins)
    kept = rows.filter(rows.column("document").is_valid())
    sizes = dict(zip(*(kept.column(name).to_pylist() for name in ("document", "text_bytes")), strict=True))
    return {int(row): sizes[int(row)] - int(cut[row]) for row in np.flatnonzero(cut)}
