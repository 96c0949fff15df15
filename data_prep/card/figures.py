"""Everything the data card counts in the rows of an account: two passes over the files, in bounded memory."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.account import KEPT
from data_prep.card.folder import AccountFolder, RowsFile
from data_prep.card.frequent import FrequentKeys
from data_prep.card.histogram import LogHistogram
from data_prep.card.place import places, string_hashes
from data_prep.card.words import OVERLAP

TOP_PLACES = 25
TOP_GROUPS = 10
_EXAMPLES = 3
_ROW_BITS = 40
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""Multiplier that spreads the keys of documents over 64 bits."""

_COLUMNS = ("path", "record", "url", "language", "text_bytes", "tokens", "outcome", "numbers")


@dataclass
class Tally:
    """How many documents, bytes of text and tokens."""

    documents: int = 0
    text_bytes: int = 0
    tokens: int = 0

    def add(self, documents: int, text_bytes: int, tokens: int) -> None:
        """Add to it."""
        self.documents += documents
        self.text_bytes += text_bytes
        self.tokens += tokens


@dataclass
class Fates:
    """What was kept and what was not."""

    kept: Tally = field(default_factory=Tally)
    dropped: Tally = field(default_factory=Tally)

    @property
    def documents(self) -> int:
        """All documents."""
        return self.kept.documents + self.dropped.documents


@dataclass
class Group:
    """A kept document and those dropped as its duplicates."""

    outcome: str
    kept_shard: int
    kept_row: int
    copies: int = 0
    """Documents dropped."""

    examples: list[str] = field(default_factory=list)
    """Names of the first of them."""

    kept_name: str = ""


@dataclass
class Hit:
    """An evaluation sample that was found in the corpus."""

    documents: int
    """Documents dropped that share text with it."""

    first: str
    """Name of the first of them."""


@dataclass
class Figures:
    """The counts."""

    cells: dict[tuple[str, str, str | None], Tally] = field(default_factory=lambda: defaultdict(Tally))
    """By source, outcome and language (None where it was not identified)."""

    kept_bytes: LogHistogram = field(default_factory=LogHistogram)
    dropped_bytes: LogHistogram = field(default_factory=LogHistogram)
    kept_tokens: LogHistogram = field(default_factory=LogHistogram)
    places: list[tuple[str, Fates]] = field(default_factory=list)
    """The places with most documents, first the fullest."""

    num_places: int = 0
    """About how many places there are in all."""

    groups: list[Group] = field(default_factory=list)
    """The largest groups of duplicates."""

    hits: dict[str, Hit] = field(default_factory=dict)
    """By evaluation sample."""


def count_figures(account: AccountFolder) -> Figures:
    """Count.

    Raises:
        DataError: a file is damaged.
    """
    figures = Figures()
    frequent_places, frequent_groups = FrequentKeys(), FrequentKeys()
    for rows in _batches(account):
        _count_cells(figures, rows)
        _count_lengths(figures, rows)
        _count_hits(figures, rows)
        names, counts = rows.place_counts()
        frequent_places.note(string_hashes(names), counts)
        duplicates = rows.duplicates()
        frequent_groups.note(duplicates.keys * _GOLDEN, np.ones(duplicates.keys.size, np.int64))
    frequent_places.settle()
    frequent_groups.settle()
    figures.num_places = frequent_places.num_keys()
    fates: dict[str, Fates] = defaultdict(Fates)
    groups: dict[int, Group] = {}
    for rows in _batches(account):
        _count_places(fates, rows, frequent_places)
        _count_groups(groups, rows.duplicates(), frequent_groups)
    figures.places = sorted(fates.items(), key=lambda item: (-item[1].documents, item[0]))[:TOP_PLACES]
    figures.groups = sorted(groups.values(), key=lambda group: (-group.copies, group.kept_shard, group.kept_row))
    del figures.groups[TOP_GROUPS:]
    for group in figures.groups:
        kept = account.document(group.kept_shard, group.kept_row, ("url", "path", "record"))
        group.kept_name = "(not in the account)" if kept is None else name_of(kept["url"], kept["path"], kept["record"])
    return figures


def name_of(url: str | None, path: str, record: int) -> str:
    """Return how a person finds a document again."""
    return url or (f"{path}:{record}" if record else path)


@dataclass(frozen=True)
class _Duplicates:
    """The duplicates among some rows."""

    table: Any
    keys: npt.NDArray[np.uint64]
    """Shard and row of the kept document, in one number."""


@dataclass(frozen=True)
class _Rows:
    """A batch of a source's rows."""

    source: str
    table: Any

    def place_counts(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Return each place and its number of documents."""
        counted = pc.value_counts(self.table.column("place").combine_chunks())
        return counted.field(0).to_pylist(), counted.field(1).to_numpy(zero_copy_only=False)

    def duplicates(self) -> _Duplicates:
        """Return the rows that name a kept document."""
        numbers = self.table.column("numbers")
        named = pc.fill_null(pc.match_substring(numbers, '"kept_row"'), False)
        table = self.table.filter(named)
        shard, row = (_number(table.column("numbers"), key) for key in ("kept_shard", "kept_row"))
        return _Duplicates(table, (shard << np.uint64(_ROW_BITS)) | row)


def _number(numbers: Any, key: str) -> npt.NDArray[np.uint64]:
    found = pc.struct_field(pc.extract_regex(numbers, rf'"{key}": ?(?P<n>\d+)'), [0])
    return pc.cast(pc.fill_null(found, "0"), pa.uint64()).to_numpy().astype(np.uint64)


def _batches(account: AccountFolder) -> Iterator[_Rows]:
    roots = {source["name"]: source.get("paths") or () for source in account.summary["sources"]}
    for file in account.files:
        yield from _file_batches(file, roots.get(file.source, ()))


def _file_batches(file: RowsFile, roots: Any) -> Iterator[_Rows]:
    for batch in file.batches(_COLUMNS):
        table = pa.Table.from_batches([batch])
        place = places(batch.column("url"), batch.column("path"), roots)
        yield _Rows(file.source, table.append_column("place", place))


def _count_cells(figures: Figures, rows: _Rows) -> None:
    sums = _sums(rows.table, ["outcome", "language"])
    for row in sums.to_pylist():
        _add(figures.cells[rows.source, row["outcome"], row["language"]], row)


def _count_lengths(figures: Figures, rows: _Rows) -> None:
    kept = pc.equal(rows.table.column("outcome"), KEPT)
    of_kept, of_dropped = rows.table.filter(kept), rows.table.filter(pc.invert(kept))
    figures.kept_bytes.add(of_kept.column("text_bytes").to_numpy())
    figures.dropped_bytes.add(of_dropped.column("text_bytes").to_numpy())
    figures.kept_tokens.add(of_kept.column("tokens").drop_null().to_numpy())


def _count_hits(figures: Figures, rows: _Rows) -> None:
    for row in rows.table.filter(pc.equal(rows.table.column("outcome"), OVERLAP)).to_pylist():
        numbers = json.loads(row["numbers"])
        for sample in (numbers["evaluation"], *json.loads(numbers.get("others", "[]"))):
            hit = figures.hits.setdefault(sample, Hit(0, name_of(row["url"], row["path"], row["record"])))
            hit.documents += 1


def _count_places(fates: dict[str, Fates], rows: _Rows, frequent: FrequentKeys) -> None:
    names, _ = rows.place_counts()
    heavy = [name for name, is_heavy in zip(names, frequent.heavy(string_hashes(names)), strict=True) if is_heavy]
    table = rows.table.filter(pc.is_in(rows.table.column("place"), pa.array(heavy, pa.string())))
    table = table.append_column("is_kept", pc.equal(table.column("outcome"), KEPT))
    for row in _sums(table, ["place", "is_kept"]).to_pylist():
        _add(fates[row["place"]].kept if row["is_kept"] else fates[row["place"]].dropped, row)


def _count_groups(groups: dict[int, Group], duplicates: _Duplicates, frequent: FrequentKeys) -> None:
    heavy = np.flatnonzero(frequent.heavy(duplicates.keys * _GOLDEN))
    order = heavy[np.argsort(duplicates.keys[heavy], kind="stable")]
    keys, begins, counts = np.unique(duplicates.keys[order], return_index=True, return_counts=True)
    for key, begin, count in zip(keys.tolist(), begins.tolist(), counts.tolist(), strict=True):
        group = groups.get(key)
        if group is None:
            outcome = duplicates.table.column("outcome")[int(order[begin])].as_py()
            group = groups[key] = Group(outcome, key >> _ROW_BITS, key & ((1 << _ROW_BITS) - 1))
        group.copies += count
        for place in order[begin : begin + min(count, _EXAMPLES - len(group.examples))].tolist():
            url, path, record = (duplicates.table.column(name)[place].as_py() for name in ("url", "path", "record"))
            group.examples.append(name_of(url, path, record))


def _sums(table: Any, keys: list[str]) -> Any:
    wanted: list[Any] = [([], "count_all"), ("text_bytes", "sum"), ("tokens", "sum")]
    return table.group_by(keys, use_threads=False).aggregate(wanted)


def _add(tally: Tally, row: dict[str, Any]) -> None:
    tally.add(row["count_all"], row["text_bytes_sum"] or 0, row["tokens_sum"] or 0)
