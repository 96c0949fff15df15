"""Curves with fewer points: of each stretch of a long one its lowest, its highest and its mean value stay."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gptdist.report.columns import Numbers, Table

MOST_POINTS = 1200
"""Of one curve of one run on a page: more than a page is wide in pixels."""

Places = np.ndarray[Any, np.dtype[np.intp]]


@dataclass(frozen=True)
class Stretch:
    """Neighbouring rows of one attempt, all kept or all lost."""

    attempt: int
    is_lost: bool
    """Whether a later attempt began before these steps, so that nothing of them is left in the weights."""

    begin: int
    end: int
    """First row, and the one behind the last."""


def lost_rows(table: Table, first_steps: dict[int, int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return for each row whether a later attempt took its step back.

    Args:
        table: rows with ``step`` and ``attempt``.
        first_steps: steps that were done before each attempt began.
    """
    step, attempt = table.column("step"), table.column("attempt")
    lost = np.zeros(table.num_rows, dtype=bool)
    for number, first in first_steps.items():
        lost |= (attempt < number) & (step > first)
    return lost


def stretches(table: Table, lost: np.ndarray[Any, np.dtype[np.bool_]]) -> list[Stretch]:
    """Return the table's rows cut where the attempt changes, or what became of them."""
    if not table.num_rows:
        return []
    attempt = table.column("attempt")
    cuts = np.flatnonzero((np.diff(attempt) != 0) | (np.diff(lost) != 0)) + 1
    bounds = [0, *cuts.tolist(), table.num_rows]
    return [Stretch(int(attempt[begin]), bool(lost[begin]), begin, end) for begin, end in itertools.pairwise(bounds)]


@dataclass(frozen=True)
class Rows:
    """The rows of one kind, ready to be drawn."""

    table: Table
    tokens: Numbers
    """Consumed at each row; nan where that is not known."""

    parts: Sequence[Stretch]
    most_points: int
    """Of a curve."""


def rows_of(table: Table, train: Table, first_steps: dict[int, int], most_points: int) -> Rows:
    """Return rows to draw; where they say no tokens, those of the lines of training at the same step are taken."""
    tokens = table.column("consumed_tokens")
    if not np.isfinite(tokens).any() and train.num_rows:
        kept = ~lost_rows(train, first_steps) & np.isfinite(train.column("consumed_tokens"))
        if kept.any():
            steps = train.column("step")[kept]
            tokens = np.interp(table.column("step"), steps, train.column("consumed_tokens")[kept], left=np.nan)
    return Rows(table, tokens, stretches(table, lost_rows(table, first_steps)), most_points)


def curve(rows: Rows, name: str) -> list[dict[str, Any]]:
    """Return a column as curves, one a stretch, with steps (``s``), tokens (``t``) and values (``y``).

    A curve that was thinned also has the means of its stretches of ``w`` lines (``ms``, ``mt``, ``my``).
    """
    step, values = rows.table.column("step"), rows.table.column(name)
    found = []
    for part in rows.parts:
        places = part.begin + np.flatnonzero(np.isfinite(values[part.begin : part.end]))
        if not len(places):
            continue
        kept, blocks = thinned(values[places], _share(rows, len(places)))
        one: dict[str, Any] = {"attempt": part.attempt, "lost": part.is_lost, "lines": len(places)}
        one |= _points(step, rows.tokens, places[kept], "")
        one["y"] = rounded(values[places[kept]])
        if blocks:
            middles = np.array([(begin + end - 1) // 2 for begin, end in blocks])
            one |= {"w": blocks[0][1] - blocks[0][0]} | _points(step, rows.tokens, places[middles], "m")
            one["my"] = rounded(np.array([values[places[begin:end]].mean() for begin, end in blocks]))
        found.append(one)
    return found


def _share(rows: Rows, count: int) -> int:
    """Return how many points so many of the rows may have."""
    return max(4, round(rows.most_points * count / max(1, rows.table.num_rows)))


def stack(rows: Rows, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return columns that lie on each other, as means over the same lines: what is thinned apart does not add up."""
    step = rows.table.column("step")
    columns = [np.nan_to_num(rows.table.column(name)) for name in names]
    found = []
    for part in rows.parts:
        if part.is_lost:
            continue
        count = part.end - part.begin
        blocks = list(_blocks(count, max(2, _share(rows, count) // 2)))
        middles = part.begin + np.array([(begin + end - 1) // 2 for begin, end in blocks])
        one: dict[str, Any] = {"attempt": part.attempt, "lost": False, "lines": count}
        one |= _points(step, rows.tokens, middles, "")
        one["parts"] = [
            rounded(np.array([column[part.begin + begin : part.begin + end].mean() for begin, end in blocks]))
            for column in columns
        ]
        found.append(one)
    return found


def thinned(values: Numbers, most_points: int) -> tuple[Places, list[tuple[int, int]]]:
    """Return the places of the values that stay, and the blocks that were thinned; no blocks where all stay.

    The first and the last value stay, and of each block the lowest and the highest.
    """
    if len(values) <= most_points:
        return np.arange(len(values)), []
    blocks = list(_blocks(len(values), max(1, most_points // 2)))
    lowest = [begin + int(values[begin:end].argmin()) for begin, end in blocks]
    highest = [begin + int(values[begin:end].argmax()) for begin, end in blocks]
    return np.unique(np.array([0, len(values) - 1, *lowest, *highest])), blocks


def _blocks(count: int, most: int) -> Iterator[tuple[int, int]]:
    width = -(-count // most)
    for begin in range(0, count, width):
        yield begin, min(count, begin + width)


def _points(step: Numbers, tokens: Numbers, rows: Places, prefix: str) -> dict[str, Any]:
    points: dict[str, Any] = {f"{prefix}s": step[rows].astype(int).tolist()}
    chosen = tokens[rows]
    if np.isfinite(chosen).all():
        points[f"{prefix}t"] = chosen.astype(int).tolist()
    return points


def rounded(values: Numbers) -> list[float]:
    """Return numbers with six digits, which is more than a picture shows."""
    return [float(f"{value:.6g}") for value in values.tolist()]
