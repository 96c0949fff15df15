"""One split of a dataset folder as a single stream of tokens over all its shards."""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import numpy as np

from gptdist.data.label_mask import LabelMask, hidden_as_labels
from gptdist.data.manifest import DatasetManifest, ShardEntry
from gptdist.data.provenance import DocumentSpan, provenance_path
from gptdist.data.shards import TokenShard, index_bytes
from gptdist.errors import DataError


class TokenDataset:
    """The tokens of a split, from 0 to ``num_tokens`` - 1.

    Opening costs a look at each shard's sizes and header, whatever its number of tokens; hashes are compared by
    ``gptdist data verify`` only.

    Args:
        folder: one source of a preparation run; it holds ``manifest.json``.
        split: ``"train"`` or ``"validation"``.

    Raises:
        DataError: the folder is no finished dataset, has no such split, or a shard is missing or of another size.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.folder = folder
        self.split = split
        self.manifest = DatasetManifest.read(folder)
        self.name = self.manifest.name
        if split not in self.manifest.splits:
            raise DataError(
                f"{folder}: has no split '{split}', only {', '.join(sorted(self.manifest.splits))}; "
                "prepare it with a validation_fraction above 0, or ask for another"
            )
        self._entries = self.manifest.splits[split].shards
        self.shards = tuple(open_shard(folder, entry, self.manifest.dtype) for entry in self._entries)
        self._masks = tuple(
            None if entry.mask_sha256 is None else LabelMask(folder, entry.name, entry.tokens)
            for entry in self._entries
        )
        self._starts = [0, *accumulate(shard.num_tokens for shard in self.shards)]
        self.num_tokens = self._starts[-1]

    @property
    def has_masks(self) -> bool:
        """Whether there are tokens that may not count as labels."""
        return any(mask is not None for mask in self._masks)

    def read(self, start: int, count: int) -> np.ndarray:
        """Return ``count`` token ids from ``start`` on, int64, across the borders of shards.

        Raises:
            DataError: the range is not inside the stream.
        """
        self._check_range(start, count)
        tokens = np.empty(count, dtype=np.int64)
        for part, shard, first in self._parts(start, count):
            tokens[part] = self.shards[shard].read(first, part.stop - part.start)
        return tokens

    def read_sample(self, start: int, count: int) -> np.ndarray:
        """Return the same, with ``~id`` for a token that does not count as a label.

        Raises:
            DataError: the range is not inside the stream.
        """
        tokens = self.read(start, count)
        for part, shard, first in self._parts(start, count) if self.has_masks else ():
            mask = self._masks[shard]
            if mask is not None:
                tokens[part] = hidden_as_labels(tokens[part], mask.read(first, part.stop - part.start))
        return tokens

    def _parts(self, start: int, count: int) -> Iterator[tuple[slice, int, int]]:
        """Yield the places that each shard fills of a range, its number, and its first token of them."""
        filled = 0
        shard = self._shard_at(start)
        while filled < count:
            first = start + filled - self._starts[shard]
            here = min(count - filled, self.shards[shard].num_tokens - first)
            yield slice(filled, filled + here), shard, first
            filled += here
            shard += 1

    def documents_in(self, start: int, count: int) -> list[DocumentSpan]:
        """Return the documents that have a token in the range, whole: their spans may begin before and end after it.

        Raises:
            DataError: the range is not inside the stream.
        """
        self._check_range(start, count)
        spans: list[DocumentSpan] = []
        position = start
        while position < start + count:
            shard = self._shard_at(position)
            document = self.shards[shard].document_at(position - self._starts[shard])
            spans.append(self._span(shard, document))
            position = spans[-1].last_token + 1
        return spans

    def document(self, number: int) -> DocumentSpan:
        """Return document ``number`` of the split, counted over all shards.

        Raises:
            DataError: there is no such document.
        """
        first = 0
        for shard, opened in enumerate(self.shards):
            if 0 <= number - first < opened.num_documents:
                return self._span(shard, number - first)
            first += opened.num_documents
        raise DataError(
            f"{self.folder}: document {number} of split '{self.split}' asked for, it has {first}; "
            f"take one of 0 … {first - 1}"
        )

    def _span(self, shard: int, document: int) -> DocumentSpan:
        first, end = self.shards[shard].document_range(document)
        start = self._starts[shard]
        return DocumentSpan(self._entries[shard].name, document, start + first, start + end - 1)

    def _shard_at(self, token: int) -> int:
        return min(bisect_right(self._starts, token), len(self.shards)) - 1

    def _check_range(self, start: int, count: int) -> None:
        if start < 0 or count < 0 or start + count > self.num_tokens:
            raise DataError(
                f"{self.folder}: tokens {start} … {start + count} of split '{self.split}' asked for, "
                f"it has {self.num_tokens}; ask for a range inside"
            )


def open_shard(folder: Path, entry: ShardEntry, dtype: str) -> TokenShard:
    """Open a shard of a manifest and compare their sizes.

    Raises:
        DataError: a file is missing, or is not what the manifest says.
    """
    shard = TokenShard(folder / entry.name)
    found = (shard.dtype.name, shard.num_documents, shard.num_tokens, shard.num_tokens * shard.dtype.itemsize)
    expected = (dtype, entry.documents, entry.tokens, entry.bin_bytes)
    if found != expected:
        raise DataError(
            f"{shard.idx_path}: {_described(found)} (index of {index_bytes(found[1])} bytes), the manifest says "
            f"{_described(expected)}; prepare the data again"
        )
    provenance = provenance_path(folder, entry.name)
    if not provenance.is_file():
        raise DataError(f"{provenance}: missing; prepare the data again")
    return shard


def _described(shard: tuple[str, int, int, int]) -> str:
    dtype, documents, tokens, size = shard
    return f"{dtype}, {documents} documents, {tokens} tokens, {size} bytes"
