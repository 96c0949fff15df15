"""What the splits of each source hold, told apart from what packing added to them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SplitSize:
    """A split of a source."""

    source: str
    split: str
    documents: int
    """Documents, not the pieces that packing made of them."""

    tokens: int
    """Tokens of documents, without padding."""

    text_bytes: int
    shards: int
    packing: Mapping[str, int] | None
    """Counts of what packing cut, and would have cut otherwise; None where documents follow each other."""

    @property
    def padding_tokens(self) -> int:
        """Tokens that fill samples up."""
        return 0 if self.packing is None else self.packing["padding_tokens"]


def split_sizes(summary: Mapping[str, Any]) -> Iterator[SplitSize]:
    """Yield the splits of all sources of ``account/summary.json``."""
    packed = summary.get("packing") or {}
    for source in summary["sources"]:
        counts = (packed.get(source["name"]) or {}).get("splits", {})
        for split, held in source["splits"].items():
            packing = counts.get(split)
            shards = held["shards"]
            yield SplitSize(
                source["name"],
                split,
                held["documents"] if packing is None else packing["documents"],
                held["tokens"] - (0 if packing is None else packing["padding_tokens"]),
                held["text_bytes"],
                shards if isinstance(shards, int) else len(shards),
                packing,
            )
