"""Tokenize a source's documents and pack them into shards: the last stage."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from data_prep.document import Document
from data_prep.progress import Progress
from gptdist.data.manifest import ShardEntry, SplitManifest
from gptdist.data.provenance import Provenance, ProvenanceWriter
from gptdist.data.shards import ShardWriter, token_dtype
from gptdist.tokenizer.tokenizer import Tokenizer

_BATCH_BYTES = 1 << 22
_BATCH_DOCUMENTS = 4096
"""A batch is large enough to keep all cores busy, small enough to stay in memory."""


class SplitPacker:
    """Write one split of a source.

    Args:
        folder: where the shards go.
        split: ``"train"`` or ``"validation"``; shards are called ``train-00000`` and so on.
        tokenizer: gives the ids.
        shard_tokens: a shard ends with the document that brings it to this size.
    """

    def __init__(self, folder: Path, split: str, tokenizer: Tokenizer, shard_tokens: int) -> None:
        self._folder, self._split = folder, split
        self._tokenizer = tokenizer
        self._shard_tokens = shard_tokens
        self._end = np.array([tokenizer.eod_id], dtype=np.int64)
        self._dtype = token_dtype(tokenizer.vocab_size)
        self._open: tuple[str, ShardWriter, ProvenanceWriter] | None = None
        self._entries: list[ShardEntry] = []
        self._text_bytes = 0

    def pack(self, documents: Iterator[Document], progress: Progress) -> SplitManifest:
        """Tokenize ``documents``, in order, and return what was written."""
        for batch in _batches(documents):
            encoded = self._tokenizer.encode_batch([document.text for document in batch])
            lengths = np.fromiter((len(ids) + 1 for ids in encoded), dtype=np.int64, count=len(encoded))
            tokens = np.concatenate([*chain.from_iterable((ids, self._end) for ids in encoded)])
            self._append(batch, tokens, lengths)
            self._text_bytes += sum(len(document.utf8) for document in batch)
            progress.advance(len(batch), sum(len(document.utf8) for document in batch))
        self._close()
        return SplitManifest(
            documents=sum(entry.documents for entry in self._entries),
            tokens=sum(entry.tokens for entry in self._entries),
            text_bytes=self._text_bytes,
            shards=tuple(self._entries),
        )

    def _append(self, batch: Sequence[Document], tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Give the batch to shards; where one is full, the next document begins another."""
        ends = np.cumsum(lengths)
        begin = 0
        while begin < len(batch):
            _, shard, provenance = self._open or self._next()
            before = int(ends[begin - 1]) if begin else 0
            room = self._shard_tokens - shard.num_tokens
            end = min(int(np.searchsorted(ends, before + room)) + 1, len(batch))
            shard.append(tokens[before : int(ends[end - 1])], lengths[begin:end])
            provenance.append(
                [_provenance(*pair) for pair in zip(batch[begin:end], lengths[begin:end].tolist(), strict=True)]
            )
            begin = end
            if shard.num_tokens >= self._shard_tokens:
                self._close()

    def _next(self) -> tuple[str, ShardWriter, ProvenanceWriter]:
        name = f"{self._split}-{len(self._entries):05d}"
        self._open = name, ShardWriter(self._folder, name, self._dtype), ProvenanceWriter(self._folder, name)
        return self._open

    def _close(self) -> None:
        if self._open is None:
            return
        name, shard, provenance = self._open
        written = shard.close()
        self._entries.append(ShardEntry(name=name, provenance_sha256=provenance.close(), **vars(written)))
        self._open = None


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.utf8)
        if size >= _BATCH_BYTES or len(batch) >= _BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _provenance(document: Document, tokens: int) -> Provenance:
    return Provenance(
        path=document.path,
        record=document.record,
        url=document.url,
        text_bytes=len(document.utf8),
        tokens=tokens,
        text_digest=document.digest.hex(),
    )
