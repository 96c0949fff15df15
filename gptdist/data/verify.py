"""The thorough check of a dataset folder: every hash, every index, every token id; a block in memory at a time."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gptdist.data.dataset import open_shard
from gptdist.data.label_mask import LabelMask, mask_path
from gptdist.data.manifest import MANIFEST_NAME, DatasetManifest, ShardEntry
from gptdist.data.provenance import provenance_path, read_columns
from gptdist.data.shards import TokenShard
from gptdist.errors import DataError

_CHUNK_TOKENS = 1 << 22
_CHUNK_DOCUMENTS = 1 << 18
_REBUILD = "restore it, or prepare the data again"


def verify_dataset(folder: Path) -> list[str]:
    """Return a line for everything wrong with a dataset folder; none means that all is well.

    Raises:
        DataError: there is no manifest to compare with.
    """
    manifest = DatasetManifest.read(folder)
    problems = list(_manifest_problems(folder, manifest))
    for split, found in manifest.splits.items():
        text_bytes = 0
        before = len(problems)
        for entry in found.shards:
            check = _ShardCheck(folder, entry, manifest)
            problems += check.problems()
            text_bytes += check.text_bytes
        if len(problems) == before and text_bytes != found.text_bytes:
            problems.append(
                f"{folder / MANIFEST_NAME}: split '{split}' has {found.text_bytes} bytes of text, its documents have "
                f"{text_bytes}; {_REBUILD}"
            )
    return problems


def _manifest_problems(folder: Path, manifest: DatasetManifest) -> Iterator[str]:
    path = folder / MANIFEST_NAME
    entries = [entry for split in manifest.splits.values() for entry in split.shards]
    names = [entry.name for entry in entries]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{path}: names shard '{name}' twice; {_REBUILD}"
    if manifest.eod_id >= manifest.vocab_size:
        yield f"{path}: eod_id {manifest.eod_id} is not below vocab_size {manifest.vocab_size}; {_REBUILD}"
    expected = {MANIFEST_NAME, *(f"{name}.{ending}" for name in names for ending in ("bin", "idx", "parquet"))}
    expected |= {mask_path(folder, entry.name).name for entry in entries if entry.mask_sha256 is not None}
    for found in sorted(folder.iterdir()):
        if found.name not in expected:
            yield f"{found}: the manifest does not name it; remove it, or move it out of the dataset"


@dataclass
class _ShardCheck:
    """One shard against the manifest, and its files against each other."""

    folder: Path
    entry: ShardEntry
    manifest: DatasetManifest
    text_bytes: int = 0
    """What the rows of its documents say."""

    later_pieces: int = 0
    """Rows of pieces of a document behind its first."""

    def problems(self) -> list[str]:
        files = {
            self.folder / f"{self.entry.name}.bin": self.entry.bin_sha256,
            self.folder / f"{self.entry.name}.idx": self.entry.idx_sha256,
            provenance_path(self.folder, self.entry.name): self.entry.provenance_sha256,
        }
        if self.entry.mask_sha256 is not None:
            files[mask_path(self.folder, self.entry.name)] = self.entry.mask_sha256
        damaged = [line for path, expected in files.items() for line in _hash_problems(path, expected)]
        if damaged:
            return damaged  # the reason is named already; what follows would only repeat it
        try:
            shard = open_shard(self.folder, self.entry, self.manifest.dtype)
            index = list(_index_problems(shard))
            if index:
                return index  # what follows reads by the index
            return [
                *self._row_problems(shard),
                *self._token_problems(shard),
                *self._end_problems(shard),
                *self._mask_problems(),
            ]
        except DataError as error:
            return [str(error)]

    def _row_problems(self, shard: TokenShard) -> Iterator[str]:
        path = provenance_path(self.folder, self.entry.name)
        row = 0
        for batch in read_columns(self.folder, self.entry.name, ["text_bytes", "tokens", "piece"]):
            end = row + batch.num_rows
            tokens = np.asarray(batch.column("tokens"))
            expected = shard.lengths[row:end]
            self.text_bytes += int(np.asarray(batch.column("text_bytes")).sum())
            self.later_pieces += int(np.count_nonzero(np.asarray(batch.column("piece"))))
            wrong = np.flatnonzero(tokens[: expected.size] != expected)
            if wrong.size:
                first = int(wrong[0])
                yield (
                    f"{path}: document {row + first} has {int(tokens[first])} tokens, the index says "
                    f"{int(expected[first])}; {_REBUILD}"
                )
                return
            row = end
        if row != self.entry.documents:
            yield f"{path}: {row} rows for {self.entry.documents} documents; {_REBUILD}"

    def _token_problems(self, shard: TokenShard) -> Iterator[str]:
        vocab_size = self.manifest.vocab_size
        for start in range(0, shard.num_tokens, _CHUNK_TOKENS):
            tokens = shard.read(start, min(_CHUNK_TOKENS, shard.num_tokens - start))
            outside = np.flatnonzero((tokens >= vocab_size) | (tokens < 0))
            if outside.size:
                first = int(outside[0])
                yield (
                    f"{shard.bin_path}: token id {int(tokens[first])} at token {start + first}, the vocabulary has "
                    f"{vocab_size}; {_REBUILD}"
                )
                return

    def _mask_problems(self) -> Iterator[str]:
        if self.entry.mask_sha256 is None:
            return
        mask = LabelMask(self.folder, self.entry.name, self.entry.tokens)
        for start in range(0, self.entry.tokens, _CHUNK_TOKENS):
            wrong = mask.first_wrong(start, _CHUNK_TOKENS)
            if wrong is not None:
                yield f"{mask.path}: byte {wrong} is neither 0 nor 1; {_REBUILD}"
                return

    def _end_problems(self, shard: TokenShard) -> Iterator[str]:
        """Every document ends with end-of-document; of a document that packing cut, its last piece does."""
        whole_sample = self.manifest.packing_seq_length
        eod_id = self.manifest.eod_id
        cut = 0
        for begin in range(0, shard.num_documents, _CHUNK_DOCUMENTS):
            end = min(begin + _CHUNK_DOCUMENTS, shard.num_documents)
            is_open = shard.last_tokens(begin, end) != eod_id
            if whole_sample is not None:
                is_piece = is_open & (shard.lengths[begin:end] == whole_sample)
                cut += int(np.count_nonzero(is_piece))
                is_open &= ~is_piece
            if is_open.any():
                first = begin + int(np.argmax(is_open))
                yield f"{shard.bin_path}: document {first} does not end with id {eod_id}; {_REBUILD}"
                return
        if cut != self.later_pieces:
            yield (
                f"{provenance_path(self.folder, self.entry.name)}: {self.later_pieces} pieces continue a document, "
                f"{cut} pieces are to be continued; {_REBUILD}"
            )


def _hash_problems(path: Path, expected: str) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        yield f"{path}: cannot be read ({error.strerror}); {_REBUILD}"
        return
    if found != expected:
        yield f"{path}: SHA-256 {found[:12]}…, the manifest says {expected[:12]}…: it was changed; {_REBUILD}"


def _index_problems(shard: TokenShard) -> Iterator[str]:
    offset = 0
    offsets_follow = True
    borders_follow = int(shard.document_borders[shard.num_documents]) == shard.num_documents
    for begin in range(0, shard.num_documents, _CHUNK_DOCUMENTS):
        end = min(begin + _CHUNK_DOCUMENTS, shard.num_documents)
        sizes = shard.lengths[begin:end].astype(np.int64) * shard.dtype.itemsize
        expected = offset + np.cumsum(sizes) - sizes
        offsets_follow &= bool(np.array_equal(expected, shard.byte_offsets[begin:end])) and int(sizes.min()) > 0
        borders_follow &= bool(np.array_equal(np.arange(begin, end), shard.document_borders[begin:end]))
        offset += int(sizes.sum())
    if not offsets_follow:
        yield f"{shard.idx_path}: document offsets do not follow from the lengths; {_REBUILD}"
    if not borders_follow:
        yield f"{shard.idx_path}: a document is not one sequence; {_REBUILD}"
