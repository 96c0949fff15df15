"""Where shards end: borders in the space of keys, so that each shard can be gathered by a task of its own."""

from collections.abc import Iterable

import numpy as np

from data_prep.packing.runs import RunFile

KEY_END = 1 << 64
_EXACT_DOCUMENTS = 1 << 22
"""Up to so many documents every key is looked at (100 MB); beyond, keys are counted in bins."""
_BIN_BITS = 20


def shard_ends(
    runs: Iterable[RunFile], documents: int, shard_tokens: int, *, exact_documents: int = _EXACT_DOCUMENTS
) -> list[int]:
    """Return the key at which each shard of a split ends, the last one at 2^64.

    A shard ends with the document that brings it to ``shard_tokens``; equal keys stay together. Where there are more
    than ``exact_documents``, it ends with the last key of that document's bin: a 2^20th of the split later at most.

    Args:
        runs: all runs of the split.
        documents: how many these hold, at least one.
        shard_tokens: tokens of a shard.
        exact_documents: see above.
    """
    keys, tokens = _exact(runs) if documents <= exact_documents else _binned(runs)
    ends: list[int] = []
    total = np.cumsum(tokens)
    done = 0
    while done < total.size:
        before = int(total[done - 1]) if done else 0
        done = int(np.searchsorted(total, before + shard_tokens)) + 1
        ends.append(int(keys[min(done, total.size) - 1]) + 1)
    return [*ends[:-1], KEY_END]


def _exact(runs: Iterable[RunFile]) -> tuple[np.ndarray, np.ndarray]:
    """Return each different key, ascending, and the tokens of its documents."""
    found = [_keys_and_tokens(run) for run in runs]
    keys = np.concatenate([keys for keys, _ in found])
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    firsts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[firsts], np.add.reduceat(np.concatenate([tokens for _, tokens in found])[order], firsts)


def _binned(runs: Iterable[RunFile]) -> tuple[np.ndarray, np.ndarray]:
    """Return the last key of each bin that has documents, and their tokens."""
    tokens = np.zeros(1 << _BIN_BITS, dtype=np.int64)
    shift = np.uint64(64 - _BIN_BITS)
    for run in runs:
        keys, counts = _keys_and_tokens(run)
        bins = (keys >> shift).astype(np.int64)
        firsts = np.flatnonzero(np.concatenate([[True], bins[1:] != bins[:-1]]))  # a run is sorted
        tokens[bins[firsts]] += np.add.reduceat(counts, firsts)
    used = np.flatnonzero(tokens)
    return (used.astype(np.uint64) << shift) | ((np.uint64(1) << shift) - np.uint64(1)), tokens[used]


def _keys_and_tokens(run: RunFile) -> tuple[np.ndarray, np.ndarray]:
    with run.rows() as rows:
        return np.array(rows.column("key")), np.array(rows.column("tokens"))
