"""Pictures, as SVG in the page: they scale, print, follow the page's colours and need nothing from outside."""

from collections.abc import Sequence
from dataclasses import dataclass

from data_prep.card.markup import MINUS, Html, element, joined, share, size, whole

WIDTH = 760
_LABEL_WIDTH = 150
_TEXT = "13"


@dataclass(frozen=True)
class Band:
    """One step of a funnel."""

    title: str
    documents_in: int
    documents_out: int
    bytes_in: int
    bytes_out: int
    size_note: str | None = None
    """Stands in the place of the bytes, which are then not drawn."""


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram."""

    begin: float
    end: float
    """Its place along the axis, 0 … 1."""

    parts: tuple[int, ...]
    """Heights, from the bottom: of what was kept, then of what was dropped."""

    label: str


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    place: float
    label: str


@dataclass(frozen=True)
class Axis:
    """What stands along a histogram."""

    ticks: Sequence[Tick]
    marks: Sequence[Tick] = ()
    """Vertical lines with a name, such as a median."""


def picture(identity: str, height: float, title: str, description: str, *shapes: str) -> Html:
    """Return a picture with its title and description, which screen readers read out."""
    names = f"{identity}-title {identity}-desc"
    inside = [element("title", title, id=f"{identity}-title"), element("desc", description, id=f"{identity}-desc")]
    drawn = element(
        "svg", *inside, *shapes, viewBox=f"0 0 {WIDTH} {height:g}", role="img", aria_labelledby=names, class_="picture"
    )
    return element("figure", element("div", drawn, class_="scroll"))


def funnel(identity: str, description: str, bands: Sequence[Band]) -> Html:
    """Return a funnel: for each stage what came in, split into what came out and what was dropped."""
    top, bar, step = 30, 16, 52
    drawn = [band for band in bands if band.size_note is None]
    documents = _Column(_LABEL_WIDTH, 340, max((band.documents_in for band in bands), default=0))
    text_left = _LABEL_WIDTH + 380
    most_bytes = max((max(band.bytes_in, band.bytes_out) for band in drawn), default=0)
    text = _Column(text_left, WIDTH - text_left, most_bytes)
    shapes = [_text(documents.left, 14, "documents", "dim"), _text(text.left, 14, "bytes of text", "dim")]
    for place, band in enumerate(bands):
        y = top + place * step + 16
        below = 0 if place + 1 == len(bands) else step - bar
        lost = band.documents_in - band.documents_out
        said = f"{MINUS}{whole(lost)}, {share(lost, band.documents_in)}" if lost else "all"
        shapes += [
            _text(_LABEL_WIDTH - 14, y + bar * 0.8, band.title, "label", anchor="end"),
            *documents.band(band.documents_in, band.documents_out, y, bar, below),
            _text(documents.left, y - 5, f"{whole(band.documents_out)}  ({said})"),
            _text(text.left, y - 5, band.size_note or size(band.bytes_out)),
        ]
        if band.size_note is None:
            shapes += text.band(band.bytes_in, band.bytes_out, y, bar, below)
    return picture(
        identity, top + len(bands) * step - step + 16 + bar + 8, "Funnel of the stages", description, *shapes
    )


def histogram(identity: str, title: str, description: str, bars: Sequence[Bar], axis: Axis) -> Html:
    """Return a histogram over a scaled axis."""
    frame = _Frame(most=max((sum(bar.parts) for bar in bars), default=0) or 1)
    shapes = [shape for value in round_values(frame.most) for shape in frame.grid(value)]
    shapes += [frame.bar(bar) for bar in bars]
    shapes.append(_line(frame.x(0), frame.y(0), frame.x(1), frame.y(0), "axis"))
    for tick in axis.ticks:
        x = frame.x(tick.place)
        shapes += [
            _line(x, frame.y(0), x, frame.y(0) + 5, "axis"),
            _text(x, frame.y(0) + 20, tick.label, "dim", anchor="middle"),
        ]
    for mark in axis.marks:
        x = frame.x(mark.place)
        shapes += [_line(x, 8, x, frame.y(0), "mark"), _text(x + 5, 16, mark.label)]
    return picture(identity, frame.height, title, description, *shapes)


def bars(identity: str, title: str, description: str, rows: Sequence[tuple[str, float, str]]) -> Html:
    """Return horizontal bars: label, length, and the number in words."""
    step, bar, room = 24, 14, 130
    most = max((length for _, length, _ in rows), default=0) or 1
    shapes = []
    for place, (label, length, said) in enumerate(rows):
        y = place * step + 4
        across = (WIDTH - _LABEL_WIDTH - room) * length / most
        shapes += [
            _text(_LABEL_WIDTH - 10, y + 12, label, "label", anchor="end"),
            _rectangle(_LABEL_WIDTH, y, across, bar, "kept"),
            _text(_LABEL_WIDTH + across + 8, y + 12, said),
        ]
    return picture(identity, len(rows) * step + 6, title, description, *shapes)


def cell_bar(kept: float, dropped: float, most: float) -> Html:
    """Return a small bar for a table's cell; the table has the numbers, so it is hidden from screen readers."""
    wide, high = 120, 12
    scale = wide / most if most else 0.0
    shapes = [
        _rectangle(0, 0, kept * scale, high, "kept"),
        _rectangle(kept * scale, 0, dropped * scale, high, "dropped"),
    ]
    return element(
        "svg",
        *shapes,
        viewBox=f"0 0 {wide} {high}",
        width=str(wide),
        height=str(high),
        aria_hidden="true",
        class_="cell",
    )


def round_values(most: int, about: int = 4) -> list[int]:
    """Return round values from 0 to ``most`` for the lines of a grid."""
    step = next(
        step for decade in range(20) for step in (10**decade, 2 * 10**decade, 5 * 10**decade) if most / step <= about
    )
    return list(range(0, most + 1, step))


@dataclass(frozen=True)
class _Column:
    """One measure's side of the funnel."""

    left: float
    width: float
    most: int

    def band(self, before: int, after: int, top: float, high: float, below: float) -> list[Html]:
        """Return the bar of a stage, and the shade of what goes on to the next."""
        scale = self.width / self.most if self.most else 0.0
        kept = after * scale
        shapes = [_rectangle(self.left, top + high, kept, below, "flow")] if below else []
        shapes.append(_rectangle(self.left, top, kept, high, "kept"))
        if before > after:
            shapes.append(_rectangle(self.left + kept, top, (before - after) * scale, high, "dropped"))
        return shapes


@dataclass(frozen=True)
class _Frame:
    """Where a histogram stands in its picture."""

    most: int
    height: int = 270
    left: int = 72
    right: int = 24
    top: int = 30
    bottom: int = 34

    def x(self, place: float) -> float:
        return self.left + (WIDTH - self.left - self.right) * place

    def y(self, value: float) -> float:
        return self.top + (self.height - self.top - self.bottom) * (1 - value / self.most)

    def grid(self, value: int) -> list[Html]:
        y = self.y(value)
        line = _line(self.left, y, WIDTH - self.right, y, "grid")
        return [line, _text(self.left - 8, y + 4, whole(value), "dim", anchor="end")]

    def bar(self, bar: Bar) -> Html:
        drawn, below = [element("title", bar.label)], 0
        x, across = self.x(bar.begin), self.x(bar.end) - self.x(bar.begin)
        for part, kind in zip(bar.parts, ("kept", "dropped"), strict=False):
            y = self.y(below + part)
            drawn.append(_rectangle(x + 0.5, y, max(0.5, across - 1), self.y(below) - y, kind))
            below += part
        return element("g", *drawn)


def _rectangle(x: float, y: float, width: float, height: float, kind: str) -> Html:
    return element("rect", x=f"{x:.1f}", y=f"{y:.1f}", width=f"{width:.1f}", height=f"{height:.1f}", class_=kind)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    return element("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=kind)


def _text(x: float, y: float, text: str, kind: str | None = None, *, anchor: str | None = None) -> Html:
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", class_=kind, text_anchor=anchor, font_size=_TEXT)


def legend() -> Html:
    """Return what the two colours mean."""
    return element(
        "p",
        joined([element("span", class_="key kept"), "kept", element("span", class_="key dropped"), "dropped"]),
        class_="legend",
    )
