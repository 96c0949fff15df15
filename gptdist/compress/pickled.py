"""Pickled tensors without code: a file that names any other class is refused before it is read."""

import pickle
import zipfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from enum import Enum, EnumMeta
from pathlib import Path
from typing import Any

import torch

from gptdist.errors import ModelImportError

_GETATTR = "builtins.getattr"
"""How Python 3.11 pickles members of an enum, in its first patch releases."""


def load_pickled(path: Path, classes: Sequence[type] = ()) -> Any:
    """Return what ``torch.save`` wrote to ``path``; tensors stay on the disk until they are used.

    Args:
        path: a file in the format of torch 1.6 and later.
        classes: may be built besides tensors and plain data.

    Raises:
        ModelImportError: it is missing or damaged, or names another class or function; nothing of it has run then.
    """
    try:
        if not zipfile.is_zipfile(path):
            path.stat()
            raise ModelImportError(f"{path}: not a file that torch.save of 1.6 or later wrote; save it again with one")
        known = {f"{one.__module__}.{one.__qualname__}" for one in classes} | {_GETATTR}
        others = sorted(set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) - known)
        if others:
            raise ModelImportError(
                f"{path}: holds {', '.join(others)}, which could run code; convert the weights to safetensors"
            )
        with allowing(classes):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ModelImportError(f"{path}: cannot be read ({first_line}); take another copy") from None


def allowing(classes: Sequence[type]) -> AbstractContextManager[object]:
    """Return a context in which ``torch.load(weights_only=True)`` builds these too, and members of enums."""
    context: AbstractContextManager[object] = torch.serialization.safe_globals([*classes, (_enum_member, _GETATTR)])
    return context


def _enum_member(owner: object, name: object) -> Enum:
    """Stand in for ``getattr``, of which nothing else is needed."""
    if isinstance(owner, EnumMeta) and isinstance(name, str) and name in owner.__members__:
        member: Enum = owner.__members__[name]
        return member
    raise pickle.UnpicklingError(f"asks for '{name}' of {owner!r}, which could run code")
