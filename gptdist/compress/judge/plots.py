"""Pictures of a comparison as SVG elements, in the colours of the page around them; no torch."""

import math
from collections.abc import Sequence

from gptdist.compress.judge.table import shown

COLOURS = ("#3b78b4", "#e0913a", "#2a9d8f", "#d9594c", "#9b6fb5", "#79a35a", "#c24d7e", "#8c8c8c")
"""Of a model, by its number; of middle brightness, so that they are seen on white and on black."""

_BAR_HEIGHT, _BAR_WIDTH, _LABEL_WIDTH = 22, 200, 26
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 400, 260, 66, 44, 16, 20


def bars(values: Sequence[float | None], best: Sequence[int]) -> str:
    """Return a bar a model, from 0 on."""
    longest = max((abs(value) for value in values if value is not None), default=0.0) or 1.0
    height = _BAR_HEIGHT * len(values)
    parts = [f'<svg viewBox="0 0 320 {height}" role="img">']
    for index, value in enumerate(values):
        top = index * _BAR_HEIGHT
        width = 0.0 if value is None else _BAR_WIDTH * abs(value) / longest
        parts.append(f'<text x="4" y="{top + 15}">{index + 1}</text>')
        parts.append(
            f'<rect x="{_LABEL_WIDTH}" y="{top + 4}" width="{width:.1f}" height="14" rx="2" fill="{_colour(index)}"/>'
        )
        text = shown(value) + (" ★" if index in best else "")
        parts.append(f'<text x="{_LABEL_WIDTH + width + 6:.1f}" y="{top + 15}">{text}</text>')
    return "".join([*parts, "</svg>"])


def scatter(points: Sequence[tuple[int, float, float]]) -> str:
    """Return models as numbered dots: bytes to the right, on a logarithmic scale, and bits per byte upwards."""
    low_x, high_x = _range([math.log10(max(1.0, size)) for _, size, _ in points])
    low_y, high_y = _range([bits for _, _, bits in points])
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">']
    inner_width, inner_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    for step in range(5):
        share = step / 4
        y = _TOP + inner_height * (1 - share)
        x = _LEFT + inner_width * share
        parts.append(f'<line class="axis" x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="soft" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{low_y + share * (high_y - low_y):.3f}</text>"
        )
        mark = _bytes(10 ** (low_x + share * (high_x - low_x)))
        anchor = "end" if step == 4 else "middle"
        parts.append(f'<text class="soft" x="{x:.1f}" y="{_HEIGHT - 24}" text-anchor="{anchor}">{mark}</text>')
    parts.append(f'<text x="{_LEFT + inner_width / 2}" y="{_HEIGHT - 6}" text-anchor="middle">weights</text>')
    middle = _TOP + inner_height / 2
    parts.append(
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">bits per byte</text>'
    )
    for number, size, bits in points:
        x = _LEFT + inner_width * (math.log10(max(1.0, size)) - low_x) / (high_x - low_x)
        y = _TOP + inner_height * (1 - (bits - low_y) / (high_y - low_y))
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{_colour(number - 1)}"/>')
        parts.append(f'<text x="{x + 9:.1f}" y="{y - 7:.1f}">{number}</text>')
    return "".join([*parts, "</svg>"])


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return a little more than the values span, and never nothing."""
    low, high = min(values), max(values)
    margin = 0.12 * (high - low) or 0.05 * max(abs(high), 1.0)
    return low - margin, high + margin


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000.0:
            return f"{value:.3g} {unit}"
        value /= 1000.0
    return f"{value:.3g} TB"


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]
