"""Bytes that autograd keeps for the backward pass, counted as they come and go."""

import weakref
from collections import Counter
from types import TracebackType
from typing import Any


class KeptBytes:
    """Counts memory that autograd keeps while it is entered; views of the same memory once, weights not at all."""

    def __init__(self, model: Any) -> None:
        """Take the model whose weights do not count."""
        import torch

        self._weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self._holders: Counter[int] = Counter()
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: kept.tensor)
        self.now = 0
        self.peak = 0

    def __enter__(self) -> "KeptBytes":
        """Begin."""
        self._hooks.__enter__()  # type: ignore[no-untyped-call]  # torch's
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; what is kept by then still counts down."""
        self._hooks.__exit__(kind, error, trace)  # type: ignore[no-untyped-call]  # torch's

    def _pack(self, tensor: Any) -> "_Kept":
        kept, storage = _Kept(tensor), tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if place not in self._weights:
            self._holders[place] += 1
            if self._holders[place] == 1:
                self.now += size
                self.peak = max(self.peak, self.now)
            weakref.finalize(kept, self._drop, place, size)
        return kept

    def _drop(self, place: int, size: int) -> None:
        self._holders[place] -= 1
        if not self._holders[place]:
            self.now -= size


class _Kept:
    """What autograd holds in place of a tensor."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor


def tensor_bytes() -> int:
    """Return bytes of all tensors that Python knows of; views of the same memory count once."""
    import gc

    import torch

    gc.collect()
    found = {}
    for thing in gc.get_objects():
        if isinstance(thing, torch.Tensor) and thing.device.type != "meta":
            storage = thing.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())
