"""Bytes that autograd keeps for the backward pass, and bytes of all tensors, counted as they come and go."""

import weakref
from collections import Counter
from collections.abc import Callable
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


def live_tensors() -> list[Any]:
    """Return the storages of all tensors that Python knows of, each once."""
    import gc

    import torch

    gc.collect()
    found = {}
    for thing in gc.get_objects():
        # what torch.export leaves behind are subclasses without memory
        if type(thing) in (torch.Tensor, torch.nn.Parameter) and thing.device.type != "meta":
            storage = thing.untyped_storage()
            found[storage.data_ptr()] = storage
    return list(found.values())


def tensor_bytes() -> int:
    """Return bytes of all tensors that Python knows of; views of the same memory count once."""
    return sum(storage.nbytes() for storage in live_tensors())


def peak_tensor_bytes(work: Callable[[], None]) -> int:
    """Return the most bytes of tensors that are there at once while ``work`` runs, those from before included.

    Counted are tensors that an operation returns, not what a kernel holds for itself. What autograd adds up in place is
    added up out of place while operations are watched.
    """
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    sizes: dict[int, int] = {}
    now = peak = 0

    def see(storage: Any) -> None:
        nonlocal now
        key = storage._cdata
        if key not in sizes:
            weakref.finalize(storage, drop, key)
        now += storage.nbytes() - sizes.get(key, 0)
        sizes[key] = storage.nbytes()

    def drop(key: int) -> None:
        nonlocal now
        now -= sizes.pop(key)

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal peak
            found = func(*args, **(kwargs or {}))
            for leaf in tree_leaves((args, kwargs, found)):  # of arguments too: a storage may be resized
                if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                    see(leaf.untyped_storage())
            peak = max(peak, now)
            return found

    import torch

    for storage in live_tensors():
        see(storage)
    peak = now
    with Watch():
        work()
    return peak
