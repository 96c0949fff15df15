"""Host memory that a checkpoint is copied to, so that training goes on while it is written."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

MEMORY_SHARE = 0.5
"""Of the memory that is free when the first checkpoint is saved, what the ranks of a machine take for buffers at most
where the config states no budget."""


def default_budget(available_bytes: int, ranks_on_machine: int) -> int:
    """Return the bytes that a rank may take for its buffers."""
    return math.floor(available_bytes * MEMORY_SHARE / ranks_on_machine)


class HostBuffers:
    """Buffers for tensors of fixed sizes, allocated once and used again for each checkpoint.

    On a GPU they are page-locked, or each copy would go through a small buffer of the driver.
    """

    def __init__(self, sizes: Mapping[str, int], device: torch.device) -> None:
        """Allocate fp32 buffers of ``sizes`` values each, for tensors that lie on ``device``.

        Raises:
            RuntimeError: there is no such memory.
        """
        self._whole = torch.empty(sum(sizes.values()), dtype=torch.float32)
        self._device = device if device.type == "cuda" else None
        if self._device is not None:  # torch's own page-locked memory is rounded up to a power of two
            size = self._whole.numel() * self._whole.element_size()
            torch.cuda.check_error(int(torch.cuda.cudart().cudaHostRegister(self._whole.data_ptr(), size, 0)))
        self._buffers = dict(zip(sizes, self._whole.split(list(sizes.values())), strict=True))

    def copy(self, values: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """Return ``values`` as they are now; the tensors returned are overwritten by the next copy."""
        left = set(self._buffers)
        for key, tensor in values:
            left.remove(key)
            self._buffers[key].copy_(tensor.detach(), non_blocking=True)
        assert not left, f"a rank holds other tensors than before: {sorted(left)}"
        if self._device is not None:
            torch.cuda.current_stream(self._device).synchronize()
        return self._buffers

    def release(self) -> None:
        """Give up the page lock, before the memory goes."""
        if self._device is not None:
            torch.cuda.check_error(int(torch.cuda.cudart().cudaHostUnregister(self._whole.data_ptr())))
