"""How long documents are."""

import re
from dataclasses import dataclass

import numpy as np

from data_prep.card.histogram import EDGES, LogHistogram
from data_prep.card.markup import DASH, Html, details, element, joined, size, table, whole
from data_prep.card.sections.view import Section, View, note
from data_prep.card.svg import Axis, Bar, Tick, histogram, legend

_FEW_BINS = 25


def lengths_section(view: View) -> Section:
    """Return histograms of bytes and tokens a document."""
    figures = view.figures
    parts = [
        legend(),
        _Lengths("bytes", "Bytes of text a document", (figures.kept_bytes, figures.dropped_bytes)).drawn(),
        _Lengths("tokens", "Tokens a kept document", (figures.kept_tokens,)).drawn(),
        note(
            "Ten bins a decade; a median is the lower edge of its bin, a bound the end of its bin. Documents dropped "
            "before their text was found have no bytes and are not drawn; their number is in the table."
        ),
    ]
    return Section("lengths", "Lengths", joined(parts))


@dataclass(frozen=True)
class _Lengths:
    """One measure of length."""

    unit: str
    title: str
    parts: tuple[LogHistogram, ...]
    """Of kept documents, then of dropped ones."""

    def drawn(self) -> Html:
        """Return the picture, what it says, and its numbers."""
        filled = np.flatnonzero(sum(part.counts for part in self.parts))
        if not filled.size:
            return element("p", f"{self.title}: nothing to count.")
        first, end = int(filled[0]), int(filled[-1]) + 1
        kept, wide = self.parts[0], end - first
        bars = [
            Bar((place - first) / wide, (place + 1 - first) / wide, self._counts(place), self._label(place))
            for place in range(first, end)
        ]
        ticks = [Tick((place - first) / wide, self._mark(int(EDGES[place]))) for place in _round_bins(first, end)]
        median = kept.quantile(0.5)
        centre = int(np.searchsorted(EDGES, median, side="right")) - 0.5
        marks = [Tick((centre - first) / wide, f"median of kept {self._short(median)}")] if median else []
        picture = histogram(f"lengths-{self.unit}", self.title, self._said(), bars, Axis(ticks, marks))
        return joined([element("h3", self.title), element("p", self._said()), picture, self._table(first, end)])

    def _said(self) -> str:
        kept = self.parts[0]
        mean = round(kept.total / kept.size) if kept.size else 0
        return (
            f"{whole(kept.size)} kept documents: median {self._short(kept.quantile(0.5))}, mean {self._short(mean)}, "
            f"nine tenths below {self._short(kept.bound(0.9))}."
        )

    def _table(self, first: int, end: int) -> Html:
        head = [self.unit, "kept", "dropped"][: 1 + len(self.parts)]
        none = [("0", *(whole(part.zeros) for part in self.parts))] if any(part.zeros for part in self.parts) else []
        cells = [(self._range(place), *map(whole, self._counts(place))) for place in range(first, end)]
        return details("As a table", table(self.title, head, none + cells))

    def _counts(self, place: int) -> tuple[int, ...]:
        return tuple(int(part.counts[place]) for part in self.parts)

    def _label(self, place: int) -> str:
        counts = zip(map(whole, self._counts(place)), ("kept", "dropped"), strict=False)
        return f"{self._range(place)} {self.unit}: " + ", ".join(f"{count} {kind}" for count, kind in counts)

    def _range(self, place: int) -> str:
        if place + 1 == EDGES.size:
            return f"{whole(int(EDGES[place]))} or more"
        begin, last = int(EDGES[place]), int(EDGES[place + 1]) - 1
        return whole(begin) if begin == last else f"{whole(begin)} {DASH} {whole(last)}"

    def _mark(self, number: int) -> str:
        return re.sub(r"\.0+ ", " ", self._short(number))

    def _short(self, number: int) -> str:
        return size(number) if self.unit == "bytes" else whole(number)


def _round_bins(first: int, end: int) -> list[int]:
    """Return the bins that begin with a power of ten; where there are few, those with 2 and 5 as well."""
    digits = ("1",) if end - first > _FEW_BINS else ("1", "2", "5")
    return [place for place in range(first, min(end + 1, EDGES.size)) if str(EDGES[place]).rstrip("0") in digits]
