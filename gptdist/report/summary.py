"""The end values of a run: what stands at the top of its page, and in the table that compares runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptdist.config.model import ModelConfig
from gptdist.errors import GptDistError
from gptdist.model.arithmetic import num_parameters
from gptdist.report.attempts import Ledger
from gptdist.report.columns import Numbers, Table

Lost = Mapping[str, np.ndarray[Any, np.dtype[np.bool_]]]


def end_values(
    tables: Mapping[str, Table], lost: Lost, attempts: Sequence[Mapping[str, Any]], ledger: Ledger, state: str
) -> list[dict[str, Any]]:
    """Return rows with ``label``, and ``value`` as text or ``time`` in seconds since 1970; nothing unknown is in it."""
    train, validation = tables.get("train", Table()), tables.get("validation", Table())
    kept = {kind: ~lost[kind] for kind in tables}
    rows = [_row("state", state), *_progress(train, kept.get("train"), ledger)]
    rows += _losses(validation, kept.get("validation"))
    rows += _speeds(train, kept.get("train"))
    rows += _times(attempts)
    rows += _trouble(attempts, ledger)
    return rows


def _row(label: str, value: str) -> dict[str, Any]:
    return {"label": label, "value": value}


def _of(table: Table, name: str, kept: Any) -> tuple[Numbers, Numbers]:
    """Return the kept values of a column, and their steps."""
    if kept is None or not table.num_rows:
        return np.empty(0), np.empty(0)
    values = table.column(name)
    chosen = kept & np.isfinite(values)
    return values[chosen], table.column("step")[chosen]


def _progress(train: Table, kept: Any, ledger: Ledger) -> list[dict[str, Any]]:
    start = ledger.starts[-1] if ledger.starts else {}
    config = start.get("config") or {}
    steps = _of(train, "step", kept)[0]
    ended = [one["step"] for one in ledger.events if one.get("event") in {"done", "stopped"} and "step" in one]
    last = int(max([start.get("step", 0), *steps[-1:], *ended[-1:]]))
    of = config.get("training", {}).get("train_steps")
    rows = [_row("step", f"{last:,}" + (f" of {of:,}" if isinstance(of, int) else ""))]
    tokens = _of(train, "consumed_tokens", kept)[0]
    if len(tokens):
        rows.append(_row("tokens", f"{int(tokens[-1]):,}"))
    losses, at = _of(train, "loss", kept)
    if len(losses):
        rows.append(_row("loss", f"{losses[-1]:.4f} nats/token (step {int(at[-1]):,})"))
    parameters = _parameters(config)
    if parameters:
        rows.append(_row("parameters", f"{parameters:,}"))
    if start.get("layout"):
        rows.append(_row("layout", str(start["layout"])))
    return rows


def _parameters(config: Mapping[str, Any]) -> int | None:
    try:
        return num_parameters(ModelConfig.from_tree(config["model"], origin="model"))
    except (KeyError, GptDistError):
        return None  # of another version


def _losses(validation: Table, kept: Any) -> list[dict[str, Any]]:
    rows = []
    for name, label, unit in (
        ("validation_loss", "validation loss", "nats/token"),
        ("bits_per_byte", "bits per byte", "bits/byte"),
    ):
        values, at = _of(validation, name, kept)
        if not len(values):
            continue
        text = f"{values[-1]:.4f} {unit} (step {int(at[-1]):,})"
        least = int(values.argmin())
        if values[least] < values[-1]:
            text += f"; lowest {values[least]:.4f} (step {int(at[least]):,})"
        rows.append(_row(label, text))
    return rows


def _speeds(train: Table, kept: Any) -> list[dict[str, Any]]:
    rows = []
    for name, label, form in (
        ("tokens_per_second", "throughput (median)", "{:,.0f} tokens/s"),
        ("mfu", "MFU (median)", "{:.3f}"),
    ):
        values, _ = _of(train, name, kept)
        if len(values):
            rows.append(_row(label, form.format(float(np.median(values)))))
    memory, _ = _of(train, "peak_memory_gib", kept)
    if len(memory):
        rows.append(_row("memory (most)", f"{memory.max():.2f} GiB of one rank"))
    return rows


def _times(attempts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    timed = [one for one in attempts if one["begin"] > 0]
    if not timed:
        return []
    begin, end = timed[0]["begin"], max(one["end"] for one in timed)
    trained = sum(one["end"] - one["begin"] for one in timed)
    return [
        _row("time in attempts", f"{duration(trained)} of {duration(end - begin)} from the first start on"),
        {"label": "began", "time": begin},
        {"label": "last seen", "time": end},
    ]


def _trouble(attempts: Sequence[Mapping[str, Any]], ledger: Ledger) -> list[dict[str, Any]]:
    if not attempts:
        return []
    lost = sum(one["lost_steps"] for one in attempts)
    counts = {name: sum(one.get("event") == name for one in ledger.events) for name in ("skip", "rewind")}
    return [
        _row("attempts", f"{len(attempts)}; {lost:,} steps lost and done again"),
        _row("skipped steps, rewinds", f"{counts['skip']:,}, {counts['rewind']:,}"),
    ]


def duration(seconds: float) -> str:
    """Return a length of time in words, such as ``2 d 03:04:05``."""
    whole = max(0, round(seconds))
    days, rest = divmod(whole, 86_400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} d {clock}" if days else clock
