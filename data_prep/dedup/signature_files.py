"""The signatures of a group of input shards on disk, laid out for the tasks that compare them.

- ``ids.bin``: number of each document (uint64), ascending; a document's *place* is its index here.
- ``sketches.bin``: sketch of each document.
- ``keys.bin`` and ``places.bin``: for each band its keys (uint64), ascending, and their documents' places (uint32).
- ``same.bin``: place of a document with the same signature as an earlier one, and that one's place (int64). Only the
  first of these is in ``keys.bin``: however often a page stands in the corpus, it comes to a meeting once a group.

That is 8 bytes a document, 1 a value and 12 a band: 532 at 32 bands of 4 rows.
"""

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from data_prep.dedup.minhash import Signatures
from data_prep.dedup.records import Array, hash_range
from gptdist.config.prep_dedup import NearDedupSection


def shard_groups(counts: list[int], most_documents: int) -> list[range]:
    """Cut the input shards into groups of consecutive ones.

    A group closes when it has a 64th of all documents, so that there is work for many, or ``most_documents``.
    """
    enough = min(most_documents, max(1, sum(counts) // 64))
    groups, begin, documents = [], 0, 0
    for shard, count in enumerate(counts):
        documents += count
        if documents >= enough:
            groups.append(range(begin, shard + 1))
            begin, documents = shard + 1, 0
    if begin < len(counts) or not groups:
        groups.append(range(begin, len(counts)))
    return groups


class SignatureWriter:
    """Write the files of a group.

    Args:
        folder: where they go.
        near: bands and rows.
    """

    def __init__(self, folder: Path, near: NearDedupSection) -> None:
        self._folder = folder
        self._ids: list[Array] = []
        self._keys = [np.empty((near.bands + 1, 0), dtype=np.uint64)]
        self._sketches = (folder / "sketches.bin").open("wb")

    def append(self, documents: Array, signatures: Signatures) -> None:
        """Add documents, in order."""
        self._ids.append(documents)
        self._keys.append(signatures.keys)
        signatures.sketches.tofile(self._sketches)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sketches.close()
        if kind is None:
            self._write_keys()

    def _write_keys(self) -> None:
        np.concatenate([np.empty(0, "u8"), *self._ids]).tofile(self._folder / "ids.bin")
        keys = np.concatenate(self._keys, axis=1)
        self._keys = []
        _, firsts, which = np.unique(keys[-1], return_index=True, return_inverse=True)
        earlier = firsts[which]
        later = np.flatnonzero(earlier != np.arange(len(earlier)))
        np.stack([later, earlier[later]]).astype(np.int64).tofile(self._folder / "same.bin")
        different = np.sort(firsts)
        with (self._folder / "keys.bin").open("wb") as sorted_keys, (self._folder / "places.bin").open("wb") as places:
            for band in keys:
                of_band = band[different]
                order = np.argsort(of_band, kind="stable")  # by key, then by place, on every machine
                of_band[order].tofile(sorted_keys)
                different[order].astype(np.uint32).tofile(places)


class SignatureFiles:
    """Read the files of a group; they are mapped, and only what is asked for is read."""

    def __init__(self, folder: Path, near: NearDedupSection) -> None:
        self._folder, self._near = folder, near
        self.count = (folder / "ids.bin").stat().st_size // 8
        self._different = (folder / "keys.bin").stat().st_size // 8 // (near.bands + 1)

    def ids(self) -> Array:
        """Return the documents' numbers."""
        return _mapped(self._folder / "ids.bin", "u8", (self.count,))

    def sketches(self, places: Array) -> Array:
        """Return the sketches of some documents."""
        shape = (self.count, self._near.bands * self._near.rows)
        return np.array(_mapped(self._folder / "sketches.bin", "u1", shape)[places])

    def same(self) -> tuple[Array, Array]:
        """Return places of documents, and of earlier ones with the same signature."""
        count = (self._folder / "same.bin").stat().st_size // 16
        later, earlier = _mapped(self._folder / "same.bin", "i8", (2, count))
        return later, earlier

    def records(self, rank: int, world_size: int) -> list[tuple[Array, Array]]:
        """Return for each band the keys in the range of task ``rank``, and their places, in the order of the keys."""
        shape = (self._near.bands + 1, self._different)
        keys = _mapped(self._folder / "keys.bin", "u8", shape)
        places = _mapped(self._folder / "places.bin", "u4", shape)
        low, high = hash_range(rank, world_size)
        found = []
        for band in range(len(keys)):
            begin = int(np.searchsorted(keys[band], np.uint64(low)))
            end = self._different if high >> 64 else int(np.searchsorted(keys[band], np.uint64(high)))
            found.append((np.array(keys[band, begin:end]), np.array(places[band, begin:end])))
        return found


def _mapped(path: Path, kind: str, shape: tuple[int, ...]) -> Array:
    if 0 in shape:
        return np.empty(shape, dtype=kind)  # an empty file cannot be mapped
    return np.asarray(np.memmap(path, dtype=kind, mode="r", shape=shape))
