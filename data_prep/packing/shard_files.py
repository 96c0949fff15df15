"""The three files of one output shard, written block by block, and what packing did to its documents."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_prep.packing.best_fit import Arrangement, best_fit, concatenated
from data_prep.packing.blocks import Block
from data_prep.packing.runs import gathered, part_borders
from gptdist.config.prep_tokenizer import PackingSection
from gptdist.data.manifest import ShardEntry
from gptdist.data.provenance import ProvenanceWriter, provenance_schema
from gptdist.data.shards import ShardWriter

_APPENDED_TOKENS = 1 << 22
_HEX_CHARACTERS = 32
PACKING_COUNTS = (
    "documents",
    "padding_tokens",
    "documents_cut",
    "cuts",
    "tokens_cut",
    "documents_cut_without",
    "cuts_without",
    "tokens_cut_without",
)
"""What packing is judged by: documents that a border between samples cuts, the cuts, and the tokens of such documents;
``without`` says the same of documents that follow each other from the beginning of each shard."""


@dataclass(frozen=True)
class FinishedShard:
    """What is known of a shard."""

    entry: ShardEntry
    text_bytes: int
    packing: dict[str, int] | None
    """``PACKING_COUNTS``, where documents were packed."""


class ShardFiles:
    """Write one shard.

    Args:
        folder: where the files go.
        name: of the shard.
        dtype: of the tokens.
        eod_id: what samples are filled with.
        packing: how documents lie; None is one after the other.
    """

    def __init__(self, folder: Path, name: str, dtype: np.dtype, eod_id: int, packing: PackingSection | None) -> None:
        self._folder, self._name, self._dtype = folder, name, dtype
        self._eod_id, self._packing = eod_id, packing
        self._counts = dict.fromkeys(PACKING_COUNTS, 0)
        self._unpacked_tokens = 0
        self._text_bytes = 0

    def write(self, blocks: Iterator[Block]) -> FinishedShard:
        """Write all blocks and finish the files."""
        provenance = ProvenanceWriter(self._folder, self._name)
        try:
            with ShardWriter(self._folder, self._name, self._dtype) as shard:
                for block in blocks:
                    arrangement = self._arrange(block)
                    self._append_tokens(shard, block, arrangement)
                    provenance.append(_origins(block.rows, arrangement))
                    self._text_bytes += int(block.rows.column("text_bytes").to_numpy().sum())
                written = shard.close()
                entry = ShardEntry(name=self._name, provenance_sha256=provenance.close(), **vars(written))
        finally:
            provenance.discard()
        return FinishedShard(entry, self._text_bytes, None if self._packing is None else self._counts)

    def _arrange(self, block: Block) -> Arrangement:
        lengths = block.rows.column("tokens").to_numpy()
        if self._packing is None:
            return concatenated(lengths)
        seq_length = self._packing.seq_length
        found = best_fit(lengths, block.rows.column("key").to_numpy(), seq_length)
        self._count(lengths, seq_length)
        self._counts["padding_tokens"] += int(found.padding.sum())
        return found

    def _count(self, lengths: np.ndarray, seq_length: int) -> None:
        ends = self._unpacked_tokens + np.cumsum(lengths)
        self._unpacked_tokens = int(ends[-1])
        self._counts["documents"] += lengths.size
        for suffix, cuts in (
            ("", -(-lengths // seq_length) - 1),
            ("_without", (ends - 1) // seq_length - (ends - lengths) // seq_length),
        ):
            self._counts[f"documents_cut{suffix}"] += int(np.count_nonzero(cuts))
            self._counts[f"cuts{suffix}"] += int(cuts.sum())
            self._counts[f"tokens_cut{suffix}"] += int(lengths[cuts > 0].sum())

    def _append_tokens(self, shard: ShardWriter, block: Block, found: Arrangement) -> None:
        first = block.rows.column("first_token").to_numpy()[found.document] + found.begin
        whole = found.tokens + found.padding
        begin = 0
        for end in part_borders(whole, _APPENDED_TOKENS):
            part = slice(begin, end)
            tokens = np.frombuffer(b"".join(gathered(block.tokens, first[part], found.tokens[part])), dtype=self._dtype)
            if found.padding[part].any():
                tokens = _padded(tokens, found.tokens[part], whole[part], self._eod_id)
            shard.append(tokens, whole[part])
            begin = end


def _padded(tokens: np.ndarray, lengths: np.ndarray, whole: np.ndarray, fill: int) -> np.ndarray:
    """Return pieces of ``lengths`` tokens, each filled up to ``whole`` tokens."""
    is_text = np.ones(int(whole.sum()), dtype=np.bool_)
    ends = np.cumsum(whole)
    for end, padding in zip(ends.tolist(), (whole - lengths).tolist(), strict=True):
        if padding:
            is_text[end - padding : end] = False
    padded = np.full(is_text.size, fill, dtype=tokens.dtype)
    padded[is_text] = tokens
    return padded


def _origins(rows: Any, found: Arrangement) -> Any:
    """Return the provenance table of the pieces."""
    taken = rows.take(pa.array(found.document)).combine_chunks()
    text_bytes = np.where(found.piece == 0, taken.column("text_bytes").to_numpy(), 0)
    columns = {name: taken.column(name) for name in ("path", "record", "offset", "url", "language")}
    return pa.table(
        {
            **columns,
            "text_bytes": text_bytes,
            "tokens": found.tokens + found.padding,
            "piece": found.piece,
            "text_digest": _hexadecimal(taken.column("digest").chunk(0)),
        },
        schema=provenance_schema(),
    )


def _hexadecimal(digests: Any) -> Any:
    """Return 16-byte values as strings of 32 characters."""
    begin = digests.offset * _HEX_CHARACTERS // 2
    content = digests.buffers()[1][begin : begin + len(digests) * _HEX_CHARACTERS // 2].to_pybytes()
    offsets = np.arange(len(digests) + 1, dtype=np.int32) * np.int32(_HEX_CHARACTERS)
    return pa.StringArray.from_buffers(len(digests), pa.py_buffer(offsets), pa.py_buffer(content.hex().encode()))
