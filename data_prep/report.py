"""The table at the end of a preparation run."""

from collections.abc import Sequence

from data_prep.pipeline import Preparation, PreparedSource
from gptdist.data.manifest import SplitManifest

_FUNNEL_HEAD = ("source", "documents in", "MB in", "dropped", "kept", "MB kept")
_SPLIT_HEAD = ("source", "split", "documents", "tokens", "bytes per token", "shards")


def report(preparation: Preparation) -> str:
    """Return what came in, was dropped and kept, and what each split holds; MB are 10^6 bytes of UTF-8 text."""
    funnel = [_funnel_row(source) for source in preparation.sources]
    splits = [
        _split_row(source.manifest.name, name, split)
        for source in preparation.sources
        for name, split in source.manifest.splits.items()
    ]
    tokenizer = preparation.tokenizer
    tokens = sum(split.tokens for source in preparation.sources for split in source.manifest.splits.values())
    last = (
        f"{tokens:,} tokens; tokenizer {tokenizer.kind} with {tokenizer.vocab_size:,} ids; "
        f"{preparation.seconds:.1f} seconds"
    )
    return "\n".join([*_table(_FUNNEL_HEAD, funnel), "", *_table(_SPLIT_HEAD, splits), "", last])


def _funnel_row(source: PreparedSource) -> tuple[str, ...]:
    funnel = source.manifest.funnel
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in sorted(funnel["dropped"].items())) or "none"
    return (
        source.manifest.name,
        f"{funnel['documents_in']:,}",
        f"{funnel['bytes_in'] / 1e6:,.2f}",
        dropped,
        f"{funnel['documents_kept']:,}",
        f"{funnel['bytes_kept'] / 1e6:,.2f}",
    )


def _split_row(source: str, name: str, split: SplitManifest) -> tuple[str, ...]:
    return (
        source,
        name,
        f"{split.documents:,}",
        f"{split.tokens:,}",
        f"{split.text_bytes / split.tokens:.2f}",
        str(len(split.shards)),
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
