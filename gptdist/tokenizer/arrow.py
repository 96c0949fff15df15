"""Texts as an Arrow ``large_string`` array, and token ids as flat arrays: what passes between stages without copies."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def text_arrays(texts: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the int64 borders of the texts in their bytes, and the bytes (uint8); both are views.

    Args:
        texts: a pyarrow ``LargeStringArray`` without nulls; it may be a slice.
    """
    _, borders, characters = texts.buffers()
    if not len(texts) or borders is None:
        return np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.uint8)
    offsets = np.frombuffer(borders, dtype=np.int64, count=len(texts) + 1, offset=8 * texts.offset)
    if characters is None or not characters.size:
        return offsets, np.empty(0, dtype=np.uint8)
    return offsets, np.frombuffer(characters, dtype=np.uint8)


def encode_arrow_by(encode: Callable[[Sequence[str]], list[np.ndarray]], texts: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return what ``Tokenizer.encode_arrow`` does, by way of Python strings."""
    encoded = encode(texts.to_pylist())
    lengths = np.fromiter((len(ids) for ids in encoded), dtype=np.int64, count=len(encoded))
    return np.concatenate([np.empty(0, dtype=np.int32), *encoded]), lengths
