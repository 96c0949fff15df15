"""The page of results, made from records alone."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.catalog import ENTRIES, Entry
from benchmarks.comparison import SAME, Comparison, reached_text
from benchmarks.record import Record

_INTRODUCTION = """# gptdist beside what one would use instead

Made by `make bench` (`python -m benchmarks.run_all`), never by hand. In every comparison both sides run on the same
machine in the same minutes and take turns; each value is the median of the rounds. `ours / theirs` is the median of the
rounds' own ratios (their range in brackets), so it need not be the quotient of the two medians beside it. `better` says
which values are. A verdict is given beside other tools only: `ours` or `theirs` where every round agrees, else `level`.
"""

_COLUMNS = ("what", "beside", "ours", "theirs", "unit", "better", "ours / theirs", "target", "verdict", "note")
_RIGHT = ("ours", "theirs", "ours / theirs")


def page(records: Mapping[str, Record], entries: Sequence[Entry] = ENTRIES) -> str:
    """Return the page of all entries, those without a record included."""
    known = [records[entry.name] for entry in entries if entry.name in records]
    lines = [_INTRODUCTION]
    if any(record.is_quick for record in known):
        lines += ["**Made with `--quick`: tiny sizes and one round, to see that everything runs. No figures.**", ""]
    lines += _machine_lines(known)
    lines += _summary_lines(known, entries)
    for entry in entries:
        lines += _section(entry, records.get(entry.name))
    return "\n".join(lines).rstrip() + "\n"


def cell(text: object) -> str:
    """Return text as a table's cell holds it."""
    one_line = " ".join(str(text).split())
    return one_line.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def figure(value: float) -> str:
    """Return a number to four digits that count, with none after the point from a thousand on."""
    if value == 0:
        return "0"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    if abs(value) < 1e-4:
        return f"{value:.3e}"
    text = f"{value:#.4g}"
    return text.rstrip(".")


def ratio_text(one: Comparison) -> str:
    """Return the ratio, and its range where there was more than a round."""
    if not one.theirs:
        return ""
    text = figure(one.ratio)
    if len(one.ratios) > 1:
        text += f" ({figure(min(one.ratios))} to {figure(max(one.ratios))})"
    return text


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return a table, and an empty line after it."""
    rule = ["---:" if column in _RIGHT else "---" for column in columns]
    body = [[cell(value) for value in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (columns, rule, *body)] + [""]


def _row(one: Comparison) -> list[str]:
    target = one.target_text
    if one.is_reached is not None:
        target += f", {reached_text(one.is_reached)}"
    theirs = figure(median(one.theirs)) if one.theirs else f"not run: {one.missing}"
    verdict = one.verdict or {"tool": "", "yardstick": "(yardstick)", "ourselves": "(ours too)"}[one.against]
    ours = figure(median(one.ours))
    return [one.name, one.peer, ours, theirs, one.unit, one.better, ratio_text(one), target, verdict, one.note]


def _section(entry: Entry, record: Record | None) -> list[str]:
    lines = [f"## {entry.title}", "", entry.meaning, ""]
    if record is None:
        why = "it is long; `--long` adds it" if entry.is_long else "no record of it; `--only` runs it alone"
        return [*lines, f"Not run: {why}.", ""]
    lines += [f"`{record.command}`, {record.seconds:,.0f} s, {record.began}, commit {record.commit or 'unknown'}.", ""]
    if record.problem:
        lines += [f"Not run: {cell(record.problem)}", ""]
    if record.comparisons:
        lines += table(_COLUMNS, map(_row, record.comparisons))
    return lines


def _machine_lines(records: Sequence[Record]) -> list[str]:
    """Say where it was measured; all of it, should the records be of several machines."""
    if not records:
        return ["Nothing was measured yet.", ""]
    rows: list[tuple[str, str]] = []
    for name in ("cpu", "cores", "cpu_flags", "memory_gib", "system", "python"):
        rows.append((name.replace("_", " "), _each(record.machine.get(name) for record in records)))
    rows.append(("our versions", _each(_versions(record.ours) for record in records)))
    rows.append(("peers' environment", _each(_versions(record.peers) for record in records if record.peers) or "none"))
    rows.append(("commit", _each(record.commit or "unknown" for record in records)))
    days = sorted(record.began[:10] for record in records)
    rows.append(("date", days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"))
    busy = [f"{record.name} {record.load:.1f}" for record in records if record.load > _QUIET_LOAD]
    rows.append(("load before, where it was not quiet", ", ".join(busy) or "-"))
    return ["## Measured on", "", *table(("", ""), rows)]


_QUIET_LOAD = 3.0
"""One comparison leaves some of its load to the next: more than two cores' worth, and others were at work."""


def _versions(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _each(values: Iterable[Any]) -> str:
    """Return the different values in their order."""
    texts = (" ".join(value) if isinstance(value, list) else str(value) for value in values)
    return "; ".join(dict.fromkeys(texts))


def _summary_lines(records: Sequence[Record], entries: Sequence[Entry]) -> list[str]:
    found = [one for record in records for one in record.comparisons]
    verdicts = [one.verdict for one in found]
    reached = [one for one in found if one.is_reached is not None]
    absent = [one for one in found if one.missing]
    failed = [record.name for record in records if record.problem]
    none = [entry.name for entry in entries if entry.name not in {record.name for record in records}]
    lines = ["## In short", ""]
    lines.append(
        f"- Beside other tools: better in {verdicts.count('ours')} figures, worse in {verdicts.count('theirs')}, level "
        f"in {verdicts.count('level')}; not run for want of the other: {len(absent)}."
    )
    lines.append(f"- Targets: {sum(bool(one.is_reached) for one in reached)} of {len(reached)} reached.")
    if failed or none:
        lines.append(f"- Not run to the end: {', '.join([*failed, *none])}.")
    lines += ["", "## Where others are faster or smaller", ""]
    worse = sorted((one for one in found if _is_behind(one)), key=_times_behind, reverse=True)
    rows = [(one.name, one.peer, ratio_text(one), one.better, one.verdict) for one in worse]
    columns = ("what", "beside", "ours / theirs", "better", "verdict")
    lines += table(columns, rows) if rows else ["In none of the figures that were run.", ""]
    missed = [one for one in found if one.is_reached is False]
    if missed:
        rows = [(one.name, one.peer, ratio_text(one), one.target_text) for one in missed]
        lines += ["## Targets missed", "", *table(("what", "beside", "ours / theirs", "target"), rows)]
    return lines


def _is_behind(one: Comparison) -> bool:
    """Whether the other is better in the median, be it in every round or not."""
    return bool(one.verdict) and _times_behind(one) > 1 + SAME


def _times_behind(one: Comparison) -> float:
    return one.ratio if one.better == "lower" else 1 / one.ratio if one.ratio else float("inf")
