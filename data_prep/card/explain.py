"""Why a document is in the corpus or not: its rows of the account, in words."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from data_prep.account import KEPT
from data_prep.account_rows import storable
from data_prep.card.figures import name_of
from data_prep.card.folder import AccountFolder, RowsFile
from data_prep.card.markup import visible
from data_prep.card.rows import ACCOUNT_SCHEMA
from data_prep.card.sections.samples import numbers_words
from data_prep.card.words import outcome_words
from gptdist.errors import DataError

MOST_ROWS = 1000
"""A path may stand for millions of records; no more of them are shown."""

MOST_SIMILAR = 20
_MOST_HOPS = 10
"""A document may be dropped for one that was dropped itself, in a later pass."""

_WITH_RECORD = re.compile(r"(.+):(\d+)")
_Row = dict[str, Any]


@dataclass(frozen=True)
class Fate:
    """What became of a document."""

    name: str
    """Its URL, or its path and record."""

    row: _Row
    """The account's row, ``numbers`` as plain data."""

    meaning: str
    """The outcome in words."""

    kept_for: tuple["Fate", ...]
    """For a duplicate the document kept for it; where that was dropped later, the one kept for that one, and so on."""


@dataclass(frozen=True)
class Explanation:
    """What an account knows of a URL or path."""

    wanted: str
    is_exact: bool
    """Whether it is a document's own URL or path; otherwise documents are listed whose URL or path contains it."""

    total: int
    """Rows found, of which ``fates`` are the first."""

    fates: tuple[Fate, ...]

    def as_data(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def as_text(self) -> str:
        """Return the explanation as lines for a terminal."""
        lines = [line for fate in self.fates for line in (_fate_lines(fate) if self.is_exact else [_short_line(fate)])]
        if not self.is_exact:
            lines.insert(0, f"no document is called '{self.wanted}'; {self.total:,} contain it:")
        if self.total > len(self.fates):
            lines.append(f"and {self.total - len(self.fates):,} more; name one by its URL or as PATH:RECORD")
        return "\n".join(map(visible, lines))


def explain(output_dir: Path, wanted: str) -> Explanation:
    """Return what became of every record of a URL or path.

    Args:
        output_dir: a finished run's ``output_dir``.
        wanted: a URL, a path, ``PATH:RECORD``, or a part of a URL or path.

    Raises:
        DataError: the run is not finished, its account is damaged, or nothing there matches.
    """
    account = AccountFolder(output_dir)
    for is_exact, most in ((True, MOST_ROWS), (False, MOST_SIMILAR)):
        total, rows = _matching(account, storable(wanted), is_exact=is_exact, most=most)
        if rows:
            fates = tuple(_fate(account, row) for row in rows)
            return Explanation(wanted, is_exact, total, fates)
    raise DataError(
        f"{account.folder}: no document's URL or path is or contains '{visible(wanted)}'; "
        "give it as the source wrote it, or a part of it"
    )


def _matching(account: AccountFolder, wanted: str, *, is_exact: bool, most: int) -> tuple[int, list[_Row]]:
    """Return how many rows match, and the first of them."""
    total = 0
    rows: list[_Row] = []
    for file in account.files:
        for table in _matches(file, wanted, is_exact=is_exact):
            total += table.num_rows
            rows += table.slice(0, most - len(rows)).to_pylist()
    return total, rows


def _matches(file: RowsFile, wanted: str, *, is_exact: bool) -> Iterator[Any]:
    record = _WITH_RECORD.fullmatch(wanted)
    for batch in file.batches(ACCOUNT_SCHEMA.names):
        url, path = batch.column("url"), batch.column("path")
        if not is_exact:
            found = pc.or_kleene(pc.match_substring(url, wanted), pc.match_substring(path, wanted))
        else:
            found = pc.or_kleene(pc.equal(url, wanted), pc.equal(path, wanted))
            if record is not None and int(record[2]) < 1 << 63:
                in_file = pc.and_(pc.equal(path, record[1]), pc.equal(batch.column("record"), int(record[2])))
                found = pc.or_kleene(found, in_file)
        yield batch.filter(pc.fill_null(found, False))


def _fate(account: AccountFolder, row: _Row) -> Fate:
    row = _with_numbers(row)
    chain: list[Fate] = []
    numbers = row["numbers"]
    while "kept_row" in numbers and len(chain) < _MOST_HOPS:
        kept = account.document(numbers["kept_shard"], numbers["kept_row"], ACCOUNT_SCHEMA.names)
        if kept is None:
            break
        kept = _with_numbers(kept)
        chain.append(Fate(_name(kept), kept, outcome_words(kept["outcome"]), ()))
        numbers = kept["numbers"]
    return Fate(_name(row), row, outcome_words(row["outcome"]), tuple(chain))


def _with_numbers(row: _Row) -> _Row:
    return {**row, "numbers": json.loads(row["numbers"] or "{}")}


def _name(row: _Row) -> str:
    return name_of(row["url"], row["path"], row["record"])


def _fate_lines(fate: Fate) -> list[str]:
    lines = [fate.name, f"  read from {_origin(fate.row)}", f"  {_said(fate)}"]
    numbers = {name: value for name, value in fate.row["numbers"].items() if not name.startswith("kept_")}
    if numbers:
        lines.append(f"  by its numbers: {numbers_words(numbers)}")
    lines.append(f"  {_size(fate.row)}")
    for kept in fate.kept_for:
        lines += [f"  instead of it: {kept.name}", f"    read from {_origin(kept.row)}", f"    {_said(kept)}"]
    if "kept_row" in fate.row["numbers"] and not fate.kept_for:
        lines.append("  instead of it: a document that is not in the account")
    return lines


def _short_line(fate: Fate) -> str:
    return f"  {fate.name}: {_said(fate)}"


def _said(fate: Fate) -> str:
    outcome = fate.row["outcome"]
    return f"kept: {fate.meaning}" if outcome == KEPT else f"dropped by {outcome}: {fate.meaning}"


def _origin(row: _Row) -> str:
    offset = "" if row["offset"] is None else f", byte {row['offset']:,}"
    return f"{row['path']}, record {row['record']:,}{offset}"


def _size(row: _Row) -> str:
    tokens = "" if row["tokens"] is None else f"; {row['tokens']:,} tokens"
    return f"language {row['language'] or 'not identified'}; {row['text_bytes']:,} bytes of text{tokens}"
