"""Which tokens of a shard count as labels: ``<shard>.mask``, a byte a token beside its ``.bin``; numpy only.

A sample's row says it in its ids: ``~id`` stands for a token that is read and not learnt, so that a row stays one
array wherever it is cut, stacked and hashed.
"""

import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np

from gptdist.durable import partial_path, publish
from gptdist.errors import DataError


def mask_path(folder: Path, shard: str) -> Path:
    """Return the mask's file of a shard."""
    return folder / f"{shard}.mask"


def write_mask(folder: Path, shard: str, counts: np.ndarray) -> str:
    """Write a shard's mask, true for a token that counts as a label, and return its SHA-256."""
    path, content = mask_path(folder, shard), counts.astype(np.uint8).tobytes()
    partial_path(path).write_bytes(content)
    publish(path)
    return hashlib.sha256(content).hexdigest()


class LabelMask:
    """Read one shard's mask; it is mapped when first used."""

    def __init__(self, folder: Path, shard: str, num_tokens: int) -> None:
        """Look at the file's size.

        Raises:
            DataError: it is missing, or does not have ``num_tokens`` bytes.
        """
        self.path, self._num_tokens = mask_path(folder, shard), num_tokens
        try:
            found = self.path.stat().st_size
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror}); prepare the data again") from None
        if found != num_tokens:
            raise DataError(f"{self.path}: {found} bytes for {num_tokens} tokens; prepare the data again")

    @cached_property
    def _counts(self) -> np.ndarray:
        return np.memmap(self.path, dtype=np.uint8, mode="r", shape=(self._num_tokens,))

    def read(self, start: int, count: int) -> np.ndarray:
        """Return whether each of ``count`` tokens from ``start`` on counts, bool; the range is inside the shard."""
        return np.array(self._counts[start : start + count]) != 0

    def first_wrong(self, start: int, count: int) -> int | None:
        """Return the first byte in a range that is neither 0 nor 1, if there is one."""
        wrong = np.flatnonzero(np.array(self._counts[start : start + count]) > 1)
        return start + int(wrong[0]) if wrong.size else None


def hidden_as_labels(tokens: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return ``tokens`` with those that do not count as labels marked."""
    return np.where(counts, tokens, ~tokens)


def token_ids(rows: np.ndarray) -> np.ndarray:
    """Return the ids of rows whatever is marked in them."""
    return np.where(rows < 0, ~rows, rows)
