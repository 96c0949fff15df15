"""A comparison of models as one page: a table, and plots of size against bits per byte and of each number; no torch."""

import html
from collections.abc import Sequence
from pathlib import Path

from gptdist.compress.judge.plots import bars, scatter
from gptdist.compress.judge.table import Judged, Row, rows_of, shown
from gptdist.durable import write_whole

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #22262b; --line: #d4d8dd; --shade: #f3f5f7;
  --best: #1d7a4f; --soft: #5d6670; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16191d; --ink: #e4e7ea; --line: #3a4047; --shade: #20252a; --best: #6fcf97; --soft: #a2abb4; }
}
* { box-sizing: border-box; }
body { margin: 1.5rem auto; max-width: 72rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: 0.25rem 0.6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
td.formula, th.formula { text-align: left; color: var(--soft); }
.best { color: var(--best); font-weight: 650; }
.off { color: var(--soft); font-size: 0.85em; }
.models { padding-left: 1.4rem; } .models li { overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; padding: 0.6rem; background: var(--shade); border-radius: 6px; }
figure.large { grid-column: 1 / -1; max-width: 36rem; }
figcaption { font-size: 0.9rem; margin-bottom: 0.3rem; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .axis { stroke: var(--line); } svg .soft { fill: var(--soft); }
pre { background: var(--shade); padding: 0.8rem; overflow-x: auto; }
@media (max-width: 640px) {
  th:first-child, td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 8rem; max-width: 8rem; }
}
"""


def page(judgements: Sequence[Judged], *, same_tokens: bool, command: str) -> str:
    """Return the whole page; nothing is loaded from anywhere."""
    rows = rows_of(judgements, same_tokens=same_tokens)
    names = "".join(f"<li>{html.escape(one.model)}</li>" for one in judgements)
    other = (
        ""
        if same_tokens
        else "<p>† A token is not the same text in all models: compare bits_per_byte, not losses a token.</p>"
    )
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Models compared</title>',
        f"<style>{_STYLE}</style></head><body><h1>Models compared</h1>",
        f'<ol class="models">{names}</ol>',
        f'<div class="wide">{_table(rows, len(judgements))}</div>',
        f"<p>Green: the best. In brackets: the difference to model 1.</p>{other}",
        f'<h2>Pictures</h2><div class="plots">{_plots(judgements, rows)}</div>',
        _sources(judgements),
        f"<h2>Command</h2><pre>gptdist {html.escape(command)}</pre></body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def write_page(path: Path, judgements: Sequence[Judged], *, same_tokens: bool, command: str) -> None:
    """Write the page to ``path``, whose folder exists."""
    write_whole(path, page(judgements, same_tokens=same_tokens, command=command).encode())


def _table(rows: Sequence[Row], count: int) -> str:
    heads = "".join(f"<th>{number}</th>" for number in range(1, count + 1))
    lines = [f'<tr><th>metric</th>{heads}<th class="formula">formula</th></tr>']
    for row in rows:
        cells = "".join(_cell(row, index) for index in range(count))
        label = html.escape(row.label) + ("" if row.is_comparable else " †")
        lines.append(f'<tr><td>{label}</td>{cells}<td class="formula">{html.escape(row.metric.formula)}</td></tr>')
    return f"<table>{''.join(lines)}</table>"


def _cell(row: Row, index: int) -> str:
    mark = ' class="best"' if index in row.best else ""
    difference = row.difference(index)
    behind = "" if difference is None else f' <span class="off">({difference:+.1%})</span>'
    return f"<td><span{mark}>{shown(row.values[index])}</span>{behind}</td>"


def _plots(judgements: Sequence[Judged], rows: Sequence[Row]) -> str:
    points = [
        (number, one.metrics["weights_bytes"], one.metrics["bits_per_byte"])
        for number, one in enumerate(judgements, 1)
        if {"weights_bytes", "bits_per_byte"} <= one.metrics.keys()
    ]
    parts = []
    if len(points) > 1:
        caption = "bits per byte over bytes of the weights: left and below is better"
        parts.append(f'<figure class="large"><figcaption>{caption}</figcaption>{scatter(points)}</figure>')
    for row in rows:
        if row.is_comparable and any(row.values):
            picture = bars(row.values, row.best)
            parts.append(f"<figure><figcaption>{html.escape(row.label)}</figcaption>{picture}</figure>")
    return "".join(parts)


def _sources(judgements: Sequence[Judged]) -> str:
    lines = []
    for number, one in enumerate(judgements, 1):
        for name, found in one.sources.items():
            cells = f"<td>{found['bits_per_byte']:.4f}</td><td>{found['loss']:.4f}</td><td>{found['tokens']:,}</td>"
            lines.append(f"<tr><td>{html.escape(name)}</td><td>{number}</td>{cells}</tr>")
    if not lines:
        return ""
    head = "<tr><th>source</th><th>model</th><th>bits/byte</th><th>nats/token</th><th>tokens</th></tr>"
    return f'<h2>By source of held-out text</h2><div class="wide"><table>{head}{"".join(lines)}</table></div>'
