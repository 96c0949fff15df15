"""What was measured, as lines of text and as rows that a page shows; no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gptdist.compress.judge.metrics import METRICS, Metric

_INTEGER_FROM = 1000.0


class Judged(Protocol):
    """What a table reads of a judgement."""

    @property
    def model(self) -> str:
        """What it is called."""
        ...

    @property
    def metrics(self) -> Mapping[str, float]:
        """Numbers by name."""
        ...

    @property
    def sources(self) -> Mapping[str, Mapping[str, float]]:
        """Losses by source of held-out text."""
        ...

    @property
    def details(self) -> Mapping[str, Any]:
        """Counts behind the numbers."""
        ...

    @property
    def tokenizer(self) -> str:
        """Fingerprint."""
        ...


@dataclass(frozen=True)
class Row:
    """One metric of several models."""

    metric: Metric
    values: tuple[float | None, ...]
    best: tuple[int, ...]
    """Which of the models are best; none where that means nothing, or all are the same."""

    is_comparable: bool
    """False for losses a token of models with different tokenizers."""

    @property
    def label(self) -> str:
        """Name with unit."""
        return f"{self.metric.name} ({self.metric.unit})" if self.metric.unit else self.metric.name

    def difference(self, index: int) -> float | None:
        """Return how much more model ``index`` has than the first, as a fraction of that; None where that is none."""
        first, value = self.values[0], self.values[index]
        if not index or first is None or value is None or not first or not self.is_comparable:
            return None
        return round(value / first - 1.0, 3) or 0.0  # never -0.0


def rows_of(judgements: Sequence[Judged], *, same_tokens: bool) -> list[Row]:
    """Return a row for each metric that any of the models has.

    Args:
        judgements: of the models, the first being what the others are compared with.
        same_tokens: whether all have the same tokenizer.
    """
    rows = []
    for metric in METRICS:
        values = tuple(one.metrics.get(metric.name) for one in judgements)
        if any(value is not None for value in values):
            comparable = same_tokens or not metric.of_tokens
            rows.append(Row(metric, values, _best(metric, values) if comparable else (), comparable))
    return rows


def _best(metric: Metric, values: Sequence[float | None]) -> tuple[int, ...]:
    known = [value for value in values if value is not None]
    if not metric.better or len(set(known)) < 2:
        return ()
    best = min(known) if metric.better == "lower" else max(known)
    return tuple(index for index, value in enumerate(values) if value == best)


def shown(value: float | None) -> str:
    """Return a number with as many digits as are of use; nothing as a dash."""
    if value is None:
        return "-"
    if value == int(value) or abs(value) >= _INTEGER_FROM:
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) >= 0.01 else f"{value:.3g}"


def judgement_lines(found: Judged) -> list[str]:
    """Return a table of one model: sources of held-out text, then every number with its formula."""
    lines = [found.model]
    if found.sources:
        head = f"{'source':<20} {'loss (nats/token)':>18} {'bits/byte':>10} {'perplexity':>12}"
        lines.append(f"{head} {'tokens':>12} {'bytes':>12}")
        for name, one in found.sources.items():
            numbers = f"{one['loss']:>18.4f} {one['bits_per_byte']:>10.4f} {one['perplexity']:>12.4g}"
            lines.append(f"{name:<20} {numbers} {one['tokens']:>12,} {one['text_bytes']:>12,}")
    for row in rows_of([found], same_tokens=True):
        formula = row.metric.formula
        lines.append(f"{row.metric.name:<26} {shown(row.values[0]):>16} {row.metric.unit:<17} {formula}".rstrip())
    lines += [f"{name.replace('_', ' ')}: {_detail(value)}" for name, value in found.details.items()]
    return lines


def _detail(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {count:,}" for name, count in value.items()) or "none"
    return f"{value:,}"


def comparison_lines(judgements: Sequence[Judged], *, same_tokens: bool) -> list[str]:
    """Return one table: a row a metric, a column a model; the best is starred, then how far it is from the first."""
    names = [f"[{number}] {one.model}" for number, one in enumerate(judgements, 1)]
    lines = [*names, "", f"{'metric':<44}" + "".join(f"{f'[{n}]':>26}" for n in range(1, len(judgements) + 1))]
    for row in rows_of(judgements, same_tokens=same_tokens):
        mark = "" if row.is_comparable else " †"
        lines.append(f"{row.label + mark:<44}" + "".join(_cell(row, index) for index in range(len(judgements))))
    lines.append("* best; in brackets the difference to [1]")
    if not same_tokens:
        lines.append("† a token is not the same text in all models: compare bits_per_byte")
    return lines


def _cell(row: Row, index: int) -> str:
    difference = row.difference(index)
    text = shown(row.values[index]) + ("*" if index in row.best else "")
    return f"{text if difference is None else f'{text} ({difference:+.1%})':>26}"
