"""Flat fp32 tensors to one safetensors file, streamed and hashed on the way."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from gptdist.checkpoint.keys import SealingKey
from gptdist.checkpoint.manifest import FileEntry
from gptdist.checkpoint.sealed_file import SealedWriter, Sink

_WORTH_A_THREAD_BYTES = 1 << 18
"""To hand a hash to another thread and wait for it takes some 0.1 ms, in which 0.1 MB is hashed."""

_WRITE_BACK_BYTES = 1 << 25
"""After so many the disk begins to write."""


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
    with path.open("wb") as file, ThreadPoolExecutor(max_workers=1) as hashing:
        hashed = _Hashed(file, hashing)
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
    """A file, and the hash of what is written to it, which another thread works out meanwhile."""

    def __init__(self, file: BinaryIO, hashing: ThreadPoolExecutor) -> None:
        self._file = file
        self._hashing = hashing
        self._size = 0
        self._started = 0
        self.digest = hashlib.sha256()

    def write(self, content: bytes | memoryview) -> None:
        if len(content) < _WORTH_A_THREAD_BYTES:
            self.digest.update(content)
            self._file.write(content)
        else:
            hashed = self._hashing.submit(self.digest.update, content)
            self._file.write(content)
            hashed.result()  # before the caller lets the memory go
        self._size += len(content)
        if self._size - self._started >= _WRITE_BACK_BYTES:
            # Begins to bring these bytes to the disk, and waits for none: fsync would find all of them left to do.
            os.posix_fadvise(self._file.fileno(), self._started, self._size - self._started, os.POSIX_FADV_DONTNEED)
            self._started = self._size
