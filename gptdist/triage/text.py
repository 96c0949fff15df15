"""What a triage has found, as lines for a terminal; text of the data is escaped, as it may be anything. No torch."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from gptdist.triage.oddness import UNITS, Oddness
from gptdist.triage.robust import MIN_NUMBERS
from gptdist.triage.samples import FoundBatch, FoundSample
from gptdist.triage.timeline import WINDOW, Record, Timeline
from gptdist.triage.triage import Gradients, Triage
from gptdist.triage.way_back import WayBack

SHOWN_CHARACTERS = 400
"""Of a sample's text on a terminal; the page and ``--json`` have all of it."""

_FLAGGED_RATIO = 3.0
"""Gradient norms of a part so many times the ordinary one are marked."""


def lines(found: Triage, num_samples: int | None) -> list[str]:
    """Return all lines, of ``num_samples`` samples at most."""
    return [
        *timeline_lines(found.run.name, found.timeline),
        "",
        *batch_lines(found.batch, num_samples),
        "",
        *(gradient_lines(found.gradients, found.timeline) if found.gradients else _without(found.no_gradients)),
        "",
        *way_back_lines(found.way_back),
    ]


def timeline_lines(name: str, timeline: Timeline) -> list[str]:
    """Return what happened around the step."""
    head = [
        f"1. What happened: {name}, step {timeline.step} of attempt {timeline.attempt} "
        f"({timeline.layout}; {timeline.attempt_end})",
        *(f"guards: {action}" for action in timeline.actions),
    ]
    if not timeline.is_recorded:
        head.append(f"step {timeline.step} is behind the last record: it failed, was lost, or is under way")
    elif timeline.record is None:
        head.append(f"step {timeline.step} has no line of its own in metrics.jsonl, see intervals.log_steps")
    elif timeline.record.times.get("step_seconds"):
        head.append(f"times: {times_text(timeline.record.times)}")
    if timeline.first_odd_step < timeline.step:
        head.append(f"records are odd from step {timeline.first_odd_step} on")
    table = [f"{'':<2}{'step':>9} {'loss':>10} {'z':>7} {'grad_norm':>10} {'z':>7} {'lr':>9}"]
    return [*head, *table, *(_record_line(one, timeline) for one in timeline.records), _legend()]


def _legend() -> str:
    return (
        f"z: jump from the median of the {MIN_NUMBERS} ordinary records before, in robust standard deviations of the "
        f"last {WINDOW} jumps; > the step; * odd"
    )


def _record_line(one: Record, timeline: Timeline) -> str:
    mark = (">" if one.step == timeline.step else " ") + ("*" if one.is_odd else " ")
    skipped = "  skipped" if one.is_skipped else ""
    return (
        f"{mark}{one.step:>9} {number(one.loss, '.4f'):>10} {number(one.loss_z, '+.1f'):>7} "
        f"{number(one.grad_norm, '.4g'):>10} {number(one.grad_norm_z, '+.1f'):>7} {number(one.lr, '.2e'):>9}{skipped}"
    )


def number(value: float | None, form: str) -> str:
    """Return a number, or a dash where there is none."""
    return "-" if value is None else format(value, form)


def times_text(times: Mapping[str, float | None]) -> str:
    """Return a record's times, seconds a step since the record before."""
    return ", ".join(f"{name} {value:.4g}" for name, value in times.items() if value is not None)


def batch_lines(batch: FoundBatch, num_samples: int | None) -> list[str]:
    """Return the samples, the most suspicious first."""
    head = f"2. The batch: samples {batch.first_sample} to {batch.last_sample}"
    found = [f"{head}, the most suspicious first", *(f"not all is shown: {one}" for one in batch.problems)]
    if batch.compared_with:
        found.append(f"z: robust standard deviations above {batch.compared_with} ordinary samples")
    if batch.loss_of:
        found.append(f"loss: of {batch.loss_of}")
    shown = batch.samples if num_samples is None else batch.samples[:num_samples]
    for one in shown:
        found += sample_lines(one)
    if len(shown) < len(batch.samples):
        found.append(f"and {len(batch.samples) - len(shown)} samples more, see --samples")
    return found


def sample_lines(one: FoundSample) -> list[str]:
    """Return one sample: numbers, documents, the beginning of its text."""
    epoch = "" if one.epoch is None else f", epoch {one.epoch}"
    text = printable(one.text[:SHOWN_CHARACTERS])
    more = "" if len(one.text) <= SHOWN_CHARACTERS else f" … ({len(one.text)} characters)"
    return [
        f"sample {one.sample} ({one.source}{epoch}): suspicion {one.oddness.suspicion:.1f}{because(one.oddness)}",
        *(f"    {line}" for line in measure_lines(one.oddness)),
        *(f"    from {document_text(document)}" for document in one.documents),
        f"    | {text}{more}",
    ]


def because(oddness: Oddness) -> str:
    """Return which measure is oddest."""
    return f", for its {oddness.reason}" if oddness.reason else ""


def measure_lines(oddness: Oddness) -> list[str]:
    """Return each measure with its unit."""
    return [
        f"{name} {value:.4g} (z {number(oddness.z_scores.get(name), '+.1f')}), {UNITS[name]}"
        for name, value in oddness.measures.items()
    ]


def document_text(part: Mapping[str, Any]) -> str:
    """Return where a part of a sample came from, on one line."""
    place = f", record {part['record']}" if part["record"] or part["offset"] is not None else ""
    place += f", byte {part['offset']}" if part["offset"] is not None else ""
    url = f", {part['url']}" if part["url"] else ""
    span = f"{part['tokens']} of {part['document_tokens']} tokens"
    return printable(f"{part['path']}{place}{url}; {part['shard']} document {part['document']}, {span}")


def printable(text: str) -> str:
    """Return ``text`` on one line, in which what does not print, and would command a terminal, is spelled out."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _without(reasons: Sequence[str]) -> list[str]:
    return ["3. Gradients: not computed", *(f"    {reason}" for reason in reasons)]


def gradient_lines(found: Gradients, timeline: Timeline) -> list[str]:
    """Return norms by part, beside those of ordinary batches."""
    steps = ", ".join(str(one.step) for one in found.ordinary)
    lines_ = [f"3. Gradients of the same batch, before clipping, in fp32; {weights_text(found, timeline)}"]
    lines_.append(f"ordinary: the median over the batches of steps {steps}, with the same weights")
    lines_.append(f"{'':<24} {'this batch':>11} {'ordinary':>11} {'ratio':>8}")
    for part, norm, ordinary in gradient_rows(found):
        ratio = norm / ordinary if ordinary else None
        mark = "  <" if ratio is not None and ratio >= _FLAGGED_RATIO else ""
        lines_.append(f"{part:<24} {norm:>11.4g} {ordinary:>11.4g} {number(ratio, '.2f'):>8}{mark}")
    if found.logged_grad_norm is not None:
        lines_.append(f"the trainer logged a gradient norm of {found.logged_grad_norm:.4g} at step {timeline.step}")
    return lines_


def weights_text(found: Gradients, timeline: Timeline) -> str:
    """Return whose weights the gradients are of."""
    before = timeline.step - 1
    if found.weights_step == before and found.replayed_from is None:
        return f"weights of the checkpoint at step {before}, those that step {timeline.step} began with"
    if found.weights_step == before:
        return f"weights of step {before}, trained again from the checkpoint at step {found.replayed_from}"
    return (
        f"weights are those of the checkpoint at step {found.weights_step}, not those of step {before} that step "
        f"{timeline.step} began with ({found.not_replayed})"
    )


def gradient_rows(found: Gradients) -> list[tuple[str, float, float]]:
    """Return each part with its norm, and the median of ordinary batches; loss and whole norm first."""
    rows = [
        ("loss, nats", found.batch.loss, median(one.loss for one in found.ordinary)),
        ("gradient norm", found.batch.grad_norm, median(one.grad_norm for one in found.ordinary)),
    ]
    return rows + [
        (part, norm, median(one.by_part[part] for one in found.ordinary)) for part, norm in found.batch.by_part.items()
    ]


def way_back_lines(found: WayBack) -> list[str]:
    """Return the last good checkpoint and the commands."""
    lines_ = ["4. The way back"]
    lines_ += [f"not whole: {one}" for one in found.damaged]
    if found.checkpoint is not None:
        by = "" if found.saved_by is None else f", saved by attempt {found.saved_by}"
        lines_.append(f"last good checkpoint: {found.checkpoint}{by}; every file was read, and its hash is right")
    lines_ += [*([found.verdict] if found.verdict else []), *(f"none: {one}" for one in found.problems)]
    return [*lines_, *(f"    $ {command}" for command in found.commands)]
