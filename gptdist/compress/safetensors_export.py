"""Write safetensors files as a stream: one tensor in memory at a time, hashed on the way, on disk when it returns.

The header of a safetensors file says where each tensor lies, so it is computed from the shapes before any data are
read. Source: the format's description, "Format" section of the safetensors README.
"""

import hashlib
import json
import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from gptdist.errors import ExportError

FORMATS = {"float32": ("F32", torch.float32), "bfloat16": ("BF16", torch.bfloat16)}
"""Our name of a number format, its name in a safetensors header, and torch's."""

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_CHECKED_VALUES = 1 << 16


@dataclass(frozen=True)
class WrittenFile:
    """A file that is whole and on disk."""

    name: str
    num_bytes: int
    sha256: str


def write_model(
    folder: Path,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Iterable[tuple[str, torch.Tensor]],
    *,
    dtype: str,
    max_shard_bytes: int,
) -> list[WrittenFile]:
    """Write the tensors of a model, split into several files and an index when one would be too large.

    Args:
        folder: where to; exists.
        shapes: of every tensor, in the order in which ``tensors`` gives them.
        tensors: names and data; read once, each let go before the next.
        dtype: ``float32`` or ``bfloat16``; data are rounded to it.
        max_shard_bytes: most bytes of data in one file; a single larger tensor gets a file of its own.

    Raises:
        ExportError: a tensor holds a number that is not finite in ``dtype``.
    """
    shards = list(_shards(shapes, _bytes_per_number(dtype), max_shard_bytes))
    stream = iter(tensors)
    files = []
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file_name = SINGLE_FILE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        files.append(_write_shard(folder / file_name, {name: shapes[name] for name in names}, stream, dtype))
        weight_map |= dict.fromkeys(names, file_name)
    assert next(stream, None) is None, "more tensors than shapes"
    if len(shards) > 1:
        total = sum(math.prod(shape) for shape in shapes.values()) * _bytes_per_number(dtype)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        files.append(write_text(folder / INDEX_FILE, json.dumps(index, indent=2) + "\n"))
    return files


def write_text(path: Path, text: str) -> WrittenFile:
    """Write a UTF-8 text file; on disk when it returns."""
    return write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> WrittenFile:
    """Write a small file; on disk when it returns."""
    with path.open("wb") as file:
        file.write(content)
        _to_disk(file)
    return WrittenFile(path.name, len(content), hashlib.sha256(content).hexdigest())


def _bytes_per_number(dtype: str) -> int:
    return FORMATS[dtype][1].itemsize


def _shards(shapes: Mapping[str, tuple[int, ...]], itemsize: int, max_bytes: int) -> Iterator[list[str]]:
    """Fill files with tensors in their order, each as far as ``max_bytes`` allows."""
    names: list[str] = []
    filled = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * itemsize
        if names and filled + size > max_bytes:
            yield names
            names, filled = [], 0
        names.append(name)
        filled += size
    yield names


def _header(shapes: Mapping[str, tuple[int, ...]], dtype: str) -> bytes:
    """The start of the file: the header's length as 8 bytes, then JSON padded with spaces to a multiple of 8."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + math.prod(shape) * _bytes_per_number(dtype)
        header[name] = {"dtype": FORMATS[dtype][0], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _write_shard(
    path: Path, shapes: Mapping[str, tuple[int, ...]], stream: Iterator[tuple[str, torch.Tensor]], dtype: str
) -> WrittenFile:
    digest = hashlib.sha256()
    num_bytes = 0
    with path.open("wb") as file:
        for piece in _pieces(shapes, stream, dtype):
            file.write(piece)
            digest.update(piece)
            num_bytes += len(piece)
            del piece  # or it would be there while the next is made
        _to_disk(file)
    return WrittenFile(path.name, num_bytes, digest.hexdigest())


def _pieces(
    shapes: Mapping[str, tuple[int, ...]], stream: Iterator[tuple[str, torch.Tensor]], dtype: str
) -> Iterator[bytes | memoryview]:
    """The file's content: the header, then each tensor."""
    yield _header(shapes, dtype)
    for expected, shape in shapes.items():
        name, tensor = next(stream)
        assert (name, tuple(tensor.shape)) == (expected, shape), f"{name} comes where {expected} {shape} is due"
        rounded = tensor.to(FORMATS[dtype][1]).contiguous()
        # in parts: torch looks at absolute values, a copy of what it is given
        if not all(bool(torch.isfinite(part).all()) for part in rounded.view(-1).split(_CHECKED_VALUES)):
            raise ExportError(
                f"{name}: holds numbers that are not finite in {dtype}; "
                f"export an earlier checkpoint, from before the training diverged"
            )
        # as bytes, because numpy has no bfloat16
        yield rounded.reshape(-1).view(torch.uint8).numpy().data
        del tensor, rounded


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
