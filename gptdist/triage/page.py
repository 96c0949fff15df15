"""What a triage has found as one page that loads nothing; everything from the run and its data is escaped. No torch."""

import html
from collections.abc import Sequence

from gptdist.triage.samples import FoundSample
from gptdist.triage.text import (
    because,
    document_text,
    gradient_rows,
    measure_lines,
    number,
    times_text,
    way_back_lines,
    weights_text,
)
from gptdist.triage.triage import Triage

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #22262b; --line: #d4d8dd; --shade: #f3f5f7;
  --odd: #b3261e; --soft: #5d6670; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16191d; --ink: #e4e7ea; --line: #3a4047; --shade: #20252a; --odd: #ff8a80; --soft: #a2abb4; }
}
* { box-sizing: border-box; }
body { margin: 1.5rem auto; max-width: 72rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } h3 { font-size: 1rem; margin-bottom: 0.3rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: 0.2rem 0.7rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr.odd { color: var(--odd); font-weight: 600; } .soft { color: var(--soft); overflow-wrap: anywhere; }
tr.this td:first-child::after { content: " ◂"; }
pre { background: var(--shade); padding: 0.8rem; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 24rem;
  overflow-y: auto; }
ul { padding-left: 1.2rem; margin: 0.2rem 0; }
"""


def page(found: Triage, num_samples: int | None) -> str:
    """Return the whole page, with ``num_samples`` samples at most."""
    title = html.escape(f"{found.run.name}: step {found.timeline.step}")
    body = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>",
        "<h2>What happened</h2>",
        *_happened(found),
        "<h2>The batch</h2>",
        *_batch(found, num_samples),
        "<h2>Gradients of the same batch</h2>",
        *_gradients(found),
        "<h2>The way back</h2>",
        f"<pre>{html.escape(chr(10).join(way_back_lines(found.way_back)[1:]))}</pre>",
        "</body></html>\n",
    ]
    return "\n".join(body)


def _happened(found: Triage) -> list[str]:
    timeline = found.timeline
    facts = [f"attempt {timeline.attempt} ({timeline.layout}; {timeline.attempt_end})"]
    facts += [f"guards: {action}" for action in timeline.actions]
    if timeline.record is not None and timeline.record.times.get("step_seconds"):
        facts.append(f"times: {times_text(timeline.record.times)}")
    rows = [
        (
            ["odd"] * one.is_odd + ["this"] * (one.step == timeline.step),
            (
                str(one.step),
                number(one.loss, ".4f"),
                number(one.loss_z, "+.1f"),
                number(one.grad_norm, ".4g"),
                number(one.grad_norm_z, "+.1f"),
                number(one.lr, ".2e"),
                "skipped" if one.is_skipped else "",
            ),
        )
        for one in timeline.records
    ]
    return [_list(facts), _table(("step", "loss", "z", "grad_norm", "z", "lr", ""), rows)]


def _batch(found: Triage, num_samples: int | None) -> list[str]:
    batch = found.batch
    facts = [f"samples {batch.first_sample} to {batch.last_sample}, the most suspicious first", *batch.problems]
    if batch.compared_with:
        facts.append(f"z: robust standard deviations above {batch.compared_with} ordinary samples")
    if batch.loss_of:
        facts.append(f"loss: of {batch.loss_of}")
    shown = batch.samples if num_samples is None else batch.samples[:num_samples]
    return [_list(facts), *(_sample(one) for one in shown)]


def _sample(one: FoundSample) -> str:
    head = f"sample {one.sample} ({one.source}): suspicion {one.oddness.suspicion:.1f}{because(one.oddness)}"
    facts = measure_lines(one.oddness) + [f"from {document_text(part)}" for part in one.documents]
    return f"<h3>{html.escape(head)}</h3>{_list(facts)}<pre>{html.escape(one.text)}</pre>"


def _gradients(found: Triage) -> list[str]:
    if found.gradients is None:
        return [_list(["not computed", *found.no_gradients])]
    rows: list[tuple[list[str], tuple[str, ...]]] = [
        ([], (part, f"{norm:.4g}", f"{ordinary:.4g}", number(norm / ordinary if ordinary else None, ".2f")))
        for part, norm, ordinary in gradient_rows(found.gradients)
    ]
    facts = [weights_text(found.gradients, found.timeline)]
    if found.gradients.logged_grad_norm is not None:
        facts.append(f"the trainer logged a gradient norm of {found.gradients.logged_grad_norm:.4g}")
    return [_list(facts), _table(("part", "this batch", "ordinary", "ratio"), rows)]


def _list(facts: Sequence[str]) -> str:
    return f'<ul class="soft">{"".join(f"<li>{html.escape(fact)}</li>" for fact in facts)}</ul>'


def _table(heads: Sequence[str], rows: Sequence[tuple[Sequence[str], Sequence[str]]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{html.escape(head)}</th>" for head in heads) + "</tr>"]
    for classes, cells in rows:
        inside = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr class="{" ".join(classes)}">{inside}</tr>')
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'
