"""The lines of metrics.jsonl as columns of numbers, read piece by piece, so that a file that grows is read once."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

Numbers = np.ndarray[Any, np.dtype[np.float64]]

PIECE_BYTES = 1 << 24
"""Read at once: enough that each column of a piece is converted by one call."""


@dataclass
class Table:
    """Rows of one kind; a number that a row lacks is no number (nan)."""

    num_rows: int = 0
    _pieces: list[tuple[int, dict[str, Numbers]]] = field(default_factory=list)

    def add(self, num_rows: int, columns: dict[str, Numbers]) -> None:
        """Add rows behind those that are there."""
        self.num_rows += num_rows
        self._pieces.append((num_rows, columns))

    @property
    def names(self) -> list[str]:
        """Names of all columns, as they first came."""
        return list(dict.fromkeys(name for _, columns in self._pieces for name in columns))

    def column(self, name: str) -> Numbers:
        """Return a column; all nan if there is none."""
        parts = [columns.get(name, np.full(count, np.nan)) for count, columns in self._pieces]
        return np.concatenate(parts) if parts else np.empty(0)

    def settle(self) -> None:
        """Put the pieces together, so that what is asked of a growing table does not cost more with each of them."""
        if len(self._pieces) > 1:
            self._pieces = [(self.num_rows, {name: self.column(name) for name in self.names})]


class MetricsFile:
    """A metrics.jsonl that may grow while it is looked at."""

    def __init__(self, path: Path) -> None:
        """Read nothing yet."""
        self.path = path
        self._reset()

    def _reset(self) -> None:
        self.tables: dict[str, Table] = defaultdict(Table)
        """Rows by kind."""

        self.unreadable = 0
        """Lines that are no record."""

        self.has_open_line = False
        """Whether the last line has no end: it is being written, or a crash tore it."""

        self._offset, self._inode = 0, -1

    def update(self) -> bool:
        """Read what is new, and return whether anything was."""
        try:
            with self.path.open("rb") as file:
                return self._read(file)
        except (FileNotFoundError, NotADirectoryError):
            had_rows = self._offset > 0
            self._reset()
            return had_rows

    def _read(self, file: Any) -> bool:
        inode, size = self.path.stat().st_ino, file.seek(0, 2)
        is_new = inode != self._inode or size < self._offset
        if is_new:
            self._reset()
            self._inode = inode
        before, rest = self._offset, b""
        file.seek(self._offset)
        while piece := file.read(PIECE_BYTES):
            whole, line_end, rest = (rest + piece).rpartition(b"\n")
            if line_end:
                self._take(whole)
                self._offset += len(whole) + 1
        self.has_open_line = bool(rest)
        for table in self.tables.values():
            table.settle()
        return is_new or self._offset != before

    def _take(self, lines: bytes) -> None:
        """Add the rows of whole lines."""
        kinds: dict[str, _Rows] = defaultdict(_Rows)
        for line in lines.split(b"\n"):
            if not line:
                continue
            row = _row(line)
            if row is None:
                self.unreadable += 1
            else:
                kinds[row.pop("kind")].add(row)
        for kind, rows in kinds.items():
            self.tables[kind].add(rows.count, rows.columns())


class _Rows:
    """Rows of one kind; those with the same names, which most are, are converted together.

    Values are kept as tuples and no row as a dict: dicts by the thousands double the time, most of it of the garbage
    collector.
    """

    def __init__(self) -> None:
        self.count = 0
        self._groups: dict[tuple[str, ...], tuple[list[int], list[tuple[Any, ...]]]] = {}

    def add(self, row: dict[str, Any]) -> None:
        names = tuple(row)
        places, values = self._groups.get(names) or self._groups.setdefault(names, ([], []))
        places.append(self.count)
        values.append(tuple(row.values()))
        self.count += 1

    def columns(self) -> dict[str, Numbers]:
        columns: dict[str, Numbers] = {}
        for names, (places, values) in self._groups.items():
            for name, column in zip(names, _block(values).T, strict=True):
                if name not in columns:
                    columns[name] = np.full(self.count, np.nan)
                columns[name][places] = np.where(np.isfinite(column), column, np.nan)
        return columns


def _row(line: bytes) -> dict[str, Any] | None:
    """Return a line's record; none if it is none with kind, attempt and step."""
    try:
        row = orjson.loads(line)
    except ValueError:
        try:
            row = json.loads(line)  # takes NaN and Infinity, which other writers leave in
        except ValueError:
            return None
    if not isinstance(row, dict) or not isinstance(row.get("kind"), str):
        return None
    return row if type(row.get("step")) is int and type(row.get("attempt")) is int else None


def _block(values: list[tuple[Any, ...]]) -> Numbers:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.array([[_number(value) for value in row] for row in values], dtype=np.float64)


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, int | float) else np.nan
    except OverflowError:
        return np.nan
