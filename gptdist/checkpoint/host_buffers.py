"""Host memory that a checkpoint is copied to, so that training goes on while it is written."""

import ctypes
import math
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

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
        """Allocate fp32 buffers of ``sizes`` values each, for tensors ``state/name`` that lie on ``device``.

        Raises:
            RuntimeError: there is no such memory.
        """
        # Optimizers keep the values of one state one behind the other; laid out alike, they are copied in long runs.
        self._order = sorted(sizes, key=lambda key: key.partition("/")[0])
        self._whole = torch.empty(sum(sizes.values()), dtype=torch.float32)
        self._device = device if device.type == "cuda" else None
        if self._device is not None:  # torch's own page-locked memory is rounded up to a power of two
            size = self._whole.numel() * self._whole.element_size()
            torch.cuda.check_error(int(torch.cuda.cudart().cudaHostRegister(self._whole.data_ptr(), size, 0)))
        buffers = dict(zip(self._order, self._whole.split([sizes[key] for key in self._order]), strict=True))
        self._buffers = {key: buffers[key] for key in sizes}

    def copy(self, values: Iterable[tuple[str, Tensor]], *, stay: bool) -> dict[str, Tensor]:
        """Return ``values`` as they are now; the tensors returned are overwritten by the next copy.

        Args:
            values: of all keys.
            stay: whether each is still there when the next one is asked for.
        """
        left = set(self._buffers)
        kept: dict[str, Tensor] = {}
        for key, tensor in values:
            left.remove(key)
            if stay:
                kept[key] = tensor.detach()
            else:
                self._buffers[key].copy_(tensor.detach(), non_blocking=True)
        assert not left, f"a rank holds other tensors than before: {sorted(left)}"
        if stay:
            _copy_runs(list(self._runs([kept[key] for key in self._order])))
        if self._device is not None:
            torch.cuda.current_stream(self._device).synchronize()
        return self._buffers

    def _runs(self, tensors: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each run of tensors that lie one behind the other, as one flat tensor, and where it goes."""
        begin = first = 0
        for index, tensor in enumerate(tensors):
            if index + 1 < len(tensors) and _follows(tensor, tensors[index + 1]):
                continue
            numel = sum(one.numel() for one in tensors[first : index + 1])
            yield tensors[first].as_strided((numel,), (1,)), self._whole[begin : begin + numel]
            begin, first = begin + numel, index + 1

    def release(self) -> None:
        """Give up the page lock, before the memory goes."""
        if self._device is not None:
            torch.cuda.check_error(int(torch.cuda.cudart().cudaHostUnregister(self._whole.data_ptr())))


def _follows(tensor: Tensor, behind: Tensor) -> bool:
    """Return whether ``behind`` begins, in the same memory, where ``tensor`` ends."""
    return (
        tensor.dtype == behind.dtype
        and tensor.untyped_storage().data_ptr() == behind.untyped_storage().data_ptr()
        and tensor.data_ptr() + tensor.nbytes == behind.data_ptr()
    )


def _copy_runs(runs: list[tuple[Tensor, Tensor]]) -> None:
    """Copy all ``runs``, those in this machine's memory with as many threads as torch has.

    The C library moves fp32: unlike torch, it writes past the caches where a run is long, so none is cut in pieces.
    """
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for source, target in runs:
            if source.dtype == target.dtype and not source.is_cuda:
                threads.submit(ctypes.memmove, target.data_ptr(), source.data_ptr(), source.nbytes)
            else:
                target.copy_(source, non_blocking=True)
