"""The thorough check of a dataset folder: every hash, every index, every token id."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gptdist.data.dataset import open_shard
from gptdist.data.manifest import DatasetManifest, ShardEntry
from gptdist.data.provenance import provenance_path, read_digests
from gptdist.data.shards import TokenShard
from gptdist.errors import DataError

_CHUNK_TOKENS = 1 << 22
_REBUILD = "restore it, or prepare the data again"


def verify_dataset(folder: Path) -> list[str]:
    """Return a line for every damaged file of a dataset folder; none means that all is well.

    Raises:
        DataError: there is no manifest to compare with.
    """
    manifest = DatasetManifest.read(folder)
    problems = []
    for split in manifest.splits.values():
        for entry in split.shards:
            problems += list(_shard_problems(folder, entry, manifest))
    return problems


def _shard_problems(folder: Path, entry: ShardEntry, manifest: DatasetManifest) -> Iterator[str]:
    files = {
        folder / f"{entry.name}.bin": entry.bin_sha256,
        folder / f"{entry.name}.idx": entry.idx_sha256,
        provenance_path(folder, entry.name): entry.provenance_sha256,
    }
    damaged = [line for path, expected in files.items() for line in _hash_problems(path, expected)]
    yield from damaged
    if damaged:
        return  # the reason is named already; what follows would only repeat it
    try:
        shard = open_shard(folder, entry, manifest.dtype)
        documents = len(read_digests(folder, entry.name))
    except DataError as error:
        yield str(error)
        return
    if documents != entry.documents:
        yield f"{provenance_path(folder, entry.name)}: {documents} rows for {entry.documents} documents; {_REBUILD}"
    yield from _index_problems(shard)
    yield from _token_problems(shard, manifest)


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
    ends = np.cumsum(shard.lengths, dtype=np.int64) * shard.dtype.itemsize
    if int(shard.byte_offsets[0]) != 0 or not np.array_equal(ends[:-1], shard.byte_offsets[1:]):
        yield f"{shard.idx_path}: document offsets do not follow from the lengths; {_REBUILD}"
    if not np.array_equal(shard.document_borders, np.arange(shard.num_documents + 1)):
        yield f"{shard.idx_path}: a document is not one sequence; {_REBUILD}"


def _token_problems(shard: TokenShard, manifest: DatasetManifest) -> Iterator[str]:
    for start in range(0, shard.num_tokens, _CHUNK_TOKENS):
        tokens = shard.read(start, min(_CHUNK_TOKENS, shard.num_tokens - start))
        if int(tokens.max()) >= manifest.vocab_size or int(tokens.min()) < 0:
            yield (
                f"{shard.bin_path}: token id {int(tokens.max())} near token {start}, the vocabulary has "
                f"{manifest.vocab_size}; {_REBUILD}"
            )
            return
    open_ended = np.flatnonzero(shard.last_tokens() != manifest.eod_id)
    if open_ended.size:
        yield (
            f"{shard.bin_path}: {open_ended.size} documents do not end with id {manifest.eod_id}, "
            f"the first is document {open_ended[0]}; {_REBUILD}"
        )
