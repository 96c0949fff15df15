"""DATA_CARD.md: what a model was trained on, from the manifests of its datasets; no torch.

Of paths only the last part is told: the others are of the machine, and may say whose it is.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptdist.data.manifest import DatasetManifest
from gptdist.data.sources import TRAIN_SPLIT, VALIDATION_SPLIT
from gptdist.errors import DataError

DATA_CARD_FILE = "DATA_CARD.md"

_STAGES = ("read", "url", "extract", "language", "filters", "quality", "decontaminate", "pii", "dedup")
"""In the order in which documents pass them; others come last."""

_CARD = """# Data of {run}

| source | weight | licence | training tokens | training documents | validation tokens | bytes of text |
| --- | --- | --- | --- | --- | --- | --- |
{sources}

Weights are shares of the training mixture. Validation documents are chosen by a hash of their content and are in no
training shard.

## From documents to tokens
| source | step | documents in | documents out | dropped |
| --- | --- | --- | --- | --- |
{funnel}

## Personal data
{personal}
"""


@dataclass(frozen=True)
class _Source:
    """One dataset, as far as this machine knows it."""

    name: str
    weight: float
    manifest: DatasetManifest | None
    counts: Mapping[str, int] | None
    """What preparation counted beside documents; none where its account is not there."""


def data_card(run: str, sources: Sequence[tuple[str, Path, float]]) -> str:
    """Return the card.

    Args:
        run: name of the run.
        sources: name, folder and weight of each; of a folder that is not here only the name and weight are told.
    """
    total = sum(weight for *_, weight in sources) or 1.0
    known = [_Source(name, weight / total, _manifest(folder), _counts(folder)) for name, folder, weight in sources]
    return _CARD.format(
        run=run,
        sources="\n".join(_source_row(one) for one in known),
        funnel="\n".join(row for one in known for row in _funnel_rows(one)) or "| | not known | | | |",
        personal="\n".join(_personal(one) for one in known),
    )


def _manifest(folder: Path) -> DatasetManifest | None:
    try:
        return DatasetManifest.read(folder)
    except DataError:
        return None


def _counts(folder: Path) -> Mapping[str, int] | None:
    """What the account of the preparation counted of this source; it lies beside the source's folder."""
    try:
        summary = json.loads((folder.parent / "account" / "summary.json").read_bytes())
        return next(dict(one["counts"]) for one in summary["sources"] if one["name"] == folder.name)
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None


def _source_row(source: _Source) -> str:
    if source.manifest is None:
        return f"| {_cell(source.name)} | {source.weight:.3g} |{' not known |' * 5}"
    splits = source.manifest.splits
    train, validation = splits.get(TRAIN_SPLIT), splits.get(VALIDATION_SPLIT)
    figures = (
        "none" if train is None else f"{train.tokens:,}",
        "none" if train is None else f"{train.documents:,}",
        "none" if validation is None else f"{validation.tokens:,}",
        f"{sum(split.text_bytes for split in splits.values()):,}",
    )
    licence = _section(source).get("licence") or "not stated"
    return f"| {_cell(source.name)} | {source.weight:.3g} | {_cell(licence)} | {' | '.join(figures)} |"


def _funnel_rows(source: _Source) -> list[str]:
    if source.manifest is None:
        return []
    funnel = source.manifest.funnel
    order = [stage for stage in _STAGES if stage in funnel] + sorted(stage for stage in funnel if stage not in _STAGES)
    return [_funnel_row(source.name, stage, funnel[stage]) for stage in order if isinstance(funnel[stage], Mapping)]


def _funnel_row(name: str, stage: str, passage: Mapping[str, Any]) -> str:
    dropped = passage.get("dropped") or {}
    reasons = ", ".join(f"{_cell(reason)} {count:,}" for reason, count in sorted(dropped.items())) or "none"
    into = "-" if stage == "read" else f"{passage.get('documents_in', 0):,}"
    return f"| {_cell(name)} | {_cell(stage)} | {into} | {passage.get('documents_out', 0):,} | {reasons} |"


def _personal(source: _Source) -> str:
    """A line of what was replaced."""
    if source.manifest is None or "pii" not in source.manifest.config:
        return f"- {_cell(source.name)}: not known"
    if source.manifest.config["pii"] is None:
        return f"- {_cell(source.name)}: was not looked for"
    if source.counts is None:
        return f"- {_cell(source.name)}: replaced by placeholders; how often is not known here"
    found = {key.removeprefix("pii."): count for key, count in sorted(source.counts.items()) if key.startswith("pii.")}
    told = ", ".join(f"{_cell(kind)} {count:,}" for kind, count in found.items()) or "none found"
    return f"- {_cell(source.name)}: replaced by placeholders: {told}"


def _section(source: _Source) -> Mapping[str, Any]:
    """The source's section of the preparation's config."""
    assert source.manifest is not None, "asked before"
    sections = source.manifest.config.get("sources") or []
    return next((one for one in sections if one.get("name") == source.manifest.name), {})


def _cell(text: object) -> str:
    """A text that cannot end its cell of a table."""
    return " ".join(str(text).replace("|", "\\|").split())
