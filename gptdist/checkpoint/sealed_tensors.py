"""Ranges of the flat fp32 tensors in an encrypted safetensors file."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptdist.checkpoint.keys import SealingKey
from gptdist.checkpoint.sealed_file import SealedFile
from gptdist.errors import CheckpointError

_MAX_HEADER_BYTES = 100_000_000
"""What the safetensors library takes at most."""


class SealedTensors:
    """Reads ranges of tensors; only the chunks that hold them are decrypted."""

    def __init__(self, path: Path, key: SealingKey) -> None:
        """Open ``path``.

        Raises:
            CheckpointError: it is missing, no encrypted safetensors file, or encrypted with another key.
        """
        self._path = path
        self._file = SealedFile(path, key)
        length = int.from_bytes(self._file.read(0, min(8, self._file.num_bytes)), "little")
        self._begin = 8 + length
        if not 2 <= length <= min(_MAX_HEADER_BYTES, self._file.num_bytes - 8):
            raise CheckpointError(f"{path}: holds no safetensors; use an older checkpoint")
        try:
            self._header: dict[str, Any] = dict(json.loads(self._file.read(8, self._begin)))
        except ValueError as error:
            raise CheckpointError(f"{path}: holds no safetensors ({error}); use an older checkpoint") from None

    def read(self, key: str, start: int, stop: int) -> Tensor:
        """Return values ``start`` … ``stop - 1`` of tensor ``key``.

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
        if not 0 <= start <= stop <= numel:
            raise CheckpointError(
                f"{self._path}: tensor '{key}' has {numel} values, not {stop}; use an older checkpoint"
            )
        if start == stop:
            return torch.empty(0)
        first = self._begin + begin
        return torch.frombuffer(self._file.read(first + 4 * start, first + 4 * stop), dtype=torch.float32)
