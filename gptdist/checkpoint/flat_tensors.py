"""Ranges of the flat fp32 tensors in a safetensors file, encrypted or not."""

import json
import os
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from gptdist.checkpoint.keys import SealingKey
from gptdist.checkpoint.sealed_file import SealedFile
from gptdist.errors import CheckpointError

_MAX_HEADER_BYTES = 100_000_000
"""What the safetensors library takes at most."""


class _Content(Protocol):
    """A file's content, which is what a sealed file holds once it is decrypted."""

    num_bytes: int

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill ``target`` with the bytes from ``start`` on."""


class _PlainFile:
    """A file in the clear. It is read, not mapped: mapped pages would count as memory of the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb", buffering=0)
            self.num_bytes = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be opened ({error}); use an older checkpoint") from None

    def read_into(self, start: int, target: memoryview) -> None:
        while target:
            count = os.preadv(self._file.fileno(), [target], start)
            if not count:
                raise CheckpointError(f"{self._path}: ends at byte {start}; use an older checkpoint")
            start, target = start + count, target[count:]


class FlatTensors:
    """Reads ranges of tensors straight into memory of the caller; of encrypted files whole chunks are decrypted."""

    def __init__(self, path: Path, key: SealingKey | None = None) -> None:
        """Open ``path``, which is encrypted if there is a ``key``.

        Raises:
            CheckpointError: it is missing, no safetensors file, or encrypted with another key.
        """
        self._path = path
        self._file: _Content = _PlainFile(path) if key is None else SealedFile(path, key)
        length = int.from_bytes(self._bytes(0, min(8, self._file.num_bytes)), "little")
        self._begin = 8 + length
        if not 2 <= length <= min(_MAX_HEADER_BYTES, self._file.num_bytes - 8):
            raise CheckpointError(f"{path}: holds no safetensors; use an older checkpoint")
        try:
            self._header: dict[str, Any] = dict(json.loads(self._bytes(8, self._begin)))
        except (ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{path}: holds no safetensors ({error}); use an older checkpoint") from None

    def read_into(self, key: str, start: int, target: Tensor) -> None:
        """Fill ``target``, flat in fp32 in this machine's memory, with tensor ``key`` from value ``start`` on.

        Raises:
            CheckpointError: there is no such tensor, or it is shorter.
        """
        match self._header.get(key):
            case {"dtype": "F32", "shape": [int(numel)], "data_offsets": [int(begin), int(end)]} if (
                begin >= 0 and end - begin == 4 * numel and self._begin + end <= self._file.num_bytes
            ):
                pass
            case _:
                raise CheckpointError(f"{self._path}: no flat fp32 tensor '{key}'; use an older checkpoint")
        stop = start + target.numel()
        if not 0 <= start <= stop <= numel:
            raise CheckpointError(
                f"{self._path}: tensor '{key}' has {numel} values, not {stop}; use an older checkpoint"
            )
        assert target.dtype == torch.float32, f"{key}: {target.dtype}"
        if start < stop:
            self._file.read_into(self._begin + begin + 4 * start, target.detach().numpy().view("uint8").data)

    def _bytes(self, start: int, stop: int) -> bytearray:
        content = bytearray(stop - start)
        self._file.read_into(start, memoryview(content))
        return content
