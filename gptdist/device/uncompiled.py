"""Libraries that ask for torch's compiler when they are imported get their functions back as they are."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch


@contextlib.contextmanager
def without_compiler() -> Iterator[None]:
    """Have what is imported within it left uncompiled, for a CPU.

    To ask for the compiler imports all of it, about a second of processor time in each rank, and the first call of such
    a function on a CPU would wait for a C++ compiler.
    """
    compiler = torch.compile
    torch.compile = _as_it_is  # type: ignore[assignment]  # one of its overloads is enough
    try:
        yield
    finally:
        torch.compile = compiler


def _as_it_is(function: Callable[..., Any] | None = None, **_: Any) -> Callable[..., Any]:
    return _as_it_is if function is None else function
