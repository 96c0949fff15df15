"""The table at the end of a preparation run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.card.splits import SplitSize, split_sizes

_FUNNEL_HEAD = ("source", "records read", "damaged", "MB read", "dropped", "kept", "MB kept")
_SPLIT_HEAD = ("source", "split", "documents", "tokens", "bytes per token", "shards")


def report(summary: Mapping[str, Any]) -> str:
    """Return what came in, was dropped and kept, and what each split holds.

    MB are 10^6 bytes: those read as they are on disk, those kept as UTF-8 text.

    Args:
        summary: what ``account/summary.json`` holds.
    """
    sources = summary["sources"]
    splits = list(split_sizes(summary))
    last = f"{sum(split.tokens for split in splits):,} tokens"
    tokenizer = summary.get("tokenizer")
    if tokenizer:
        last += f"; tokenizer {tokenizer['kind']} with {tokenizer['vocab_size']:,} ids, {_engines(tokenizer)}"
    funnel = [_funnel_row(source, [split for split in splits if split.source == source["name"]]) for source in sources]
    rows = [_split_row(split) for split in splits]
    return "\n".join(
        [
            *_table(_FUNNEL_HEAD, funnel),
            "",
            *_table(_SPLIT_HEAD, rows),
            "",
            *_packing(splits),
            *_evaluation(summary),
            last,
        ]
    )


def dropped_by(passages: Mapping[str, Any]) -> dict[str, int]:
    """Return how many documents each stage or rule set dropped; of a rule ``gopher_quality.x`` the set counts."""
    counts: Counter[str] = Counter()
    for stage, passage in passages.items():
        for rule, count in passage["dropped"].items():
            counts[rule.partition(".")[0] if "." in rule else stage] += count
    return dict(counts)


def _funnel_row(source: Mapping[str, Any], splits: Sequence[SplitSize]) -> tuple[str, ...]:
    dropped = ", ".join(f"{count:,} {stage}" for stage, count in dropped_by(source["passages"]).items()) or "none"
    return (
        source["name"],
        f"{source['records_read']:,}",
        f"{sum(source['damage'].values()):,}",
        f"{source['input_bytes'] / 1e6:,.2f}",
        dropped,
        f"{sum(split.documents for split in splits):,}",
        f"{sum(split.text_bytes for split in splits) / 1e6:,.2f}",
    )


def _split_row(split: SplitSize) -> tuple[str, ...]:
    return (
        split.source,
        split.split,
        f"{split.documents:,}",
        f"{split.tokens:,}",
        f"{split.text_bytes / split.tokens:.2f}" if split.tokens else "-",
        str(split.shards),
    )


def _packing(splits: Sequence[SplitSize]) -> list[str]:
    """Return the line on what packing saves."""
    found = [split.packing for split in splits if split.packing is not None]
    if not found:
        return []
    cut, without, padding = (
        sum(counts[name] for counts in found) for name in ("documents_cut", "documents_cut_without", "padding_tokens")
    )
    return [f"packing: {cut:,} documents cut, {without:,} without it; {padding:,} tokens of padding, not counted above"]


def _engines(tokenizer: Mapping[str, Any]) -> str:
    """Return which engine encoded; if it was more than one, how many input shards each did."""
    engines = tokenizer["engines"]
    if len(engines) == 1:
        return f"encoded by {next(iter(engines))}"
    return "input shards encoded by " + ", ".join(f"{name}: {count:,}" for name, count in engines.items())


def _evaluation(summary: Mapping[str, Any]) -> list[str]:
    """Return the line on what evaluation sets were looked for."""
    files = summary.get("evaluation")
    if not files:
        return []
    line = f"decontamination: {sum(file['samples'] for file in files):,} samples of {len(files)} evaluation sets"
    short = [file for file in files if file["too_short"]]
    if short:
        first = f"{short[0]['label']}:{short[0]['first_too_short'][0]}"
        line += f"; {sum(file['too_short'] for file in short):,} too short to be looked for (first: {first})"
    return [line]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
