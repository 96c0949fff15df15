"""Flat fp32 tensors to and from one safetensors file, streamed and hashed on the way."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gptdist.checkpoint.keys import SealingKey
from gptdist.checkpoint.manifest import FileEntry
from gptdist.checkpoint.sealed_file import SealedWriter, Sink
from gptdist.errors import CheckpointError


def write_stream(
    path: Path, sizes: Mapping[str, int], tensors: Iterable[Tensor], sealing_key: SealingKey | None = None
) -> FileEntry:
    """Write flat tensors in fp32 and return the file's size and hash; on the disk when this returns.

    Args:
        path: the file.
        sizes: number of values of each tensor, in the order in which they come.
        tensors: read once, each let go before the next, one at a time copied to host memory.
        sealing_key: encrypts the file; None leaves it in the clear.
    """
    header: dict[str, Any] = {}
    offset = 0
    for key, numel in sizes.items():
        end = offset + 4 * numel
        header[key] = {"dtype": "F32", "shape": [numel], "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        hashed = _Hashed(file)
        sealed = None if sealing_key is None else SealedWriter(hashed, sealing_key, 8 + len(encoded) + offset)
        sink: Sink = sealed or hashed
        sink.write(len(encoded).to_bytes(8, "little") + encoded)
        for tensor in tensors:
            assert tensor.dim() == 1, f"{path}: {tuple(tensor.shape)}"
            assert tensor.dtype in (torch.float32, torch.bfloat16), f"{path}: {tensor.dtype} would change in fp32"
            sink.write(tensor.detach().to("cpu", torch.float32).contiguous().numpy().view("uint8").data)
        if sealed is not None:
            sealed.finish()
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    expected = 8 + len(encoded) + offset
    assert sealed is not None or size == expected, f"{path}: {size} bytes where the header says {expected}"
    return FileEntry(name=path.name, num_bytes=size, sha256=hashed.digest.hexdigest())


class _Hashed:
    """A file, and the hash of what is written to it."""

    def __init__(self, file: Sink) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, content: bytes | memoryview) -> None:
        self._file.write(content)
        self.digest.update(content)


class TensorFile:
    """Reads ranges of flat tensors from a file that stays mapped while this is open."""

    def __init__(self, path: Path) -> None:
        """Open ``path``.

        Raises:
            CheckpointError: it is missing or no safetensors file.
        """
        self._path = path
        try:
            self._file: Any = safe_open(path, framework="pt")
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: cannot be opened ({error}); use an older checkpoint") from None

    def __enter__(self) -> Self:
        """Return the file."""
        self._file.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unmap the file."""
        self._file.__exit__(kind, error, trace)

    def read(self, key: str, start: int, stop: int) -> Tensor:
        """Return values ``start`` … ``stop - 1`` of tensor ``key``; only these bytes are read.

        Raises:
            CheckpointError: there is no such tensor, or it is shorter.
        """
        try:
            values: Tensor = self._file.get_slice(key)[start:stop]
        except SafetensorError as error:
            raise CheckpointError(f"{self._path}: no tensor '{key}' ({error}); use an older checkpoint") from None
        if values.dtype != torch.float32 or values.shape != (stop - start,):
            raise CheckpointError(
                f"{self._path}: tensor '{key}' is {values.dtype} {tuple(values.shape)} in {start}:{stop}; "
                f"use an older checkpoint"
            )
        return values
