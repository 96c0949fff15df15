"""Numba's compiler as a typed decorator."""

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile ``function`` when it is first called; the machine code is kept beside its file.

    Numba looks for changes in the function's own file alone, so a file holds whatever its kernels call and read.
    """
    return cast(F, njit(cache=True)(function))
