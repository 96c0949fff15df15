"""The one file that lets megatron-core run without CUDA.

megatron-core asks ``torch.cuda`` for the current device, the random state and profiler ranges without checking that
there is a GPU. Where there is none, these few functions answer for the CPU instead. Where there is one, nothing is
touched.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

import torch

from gptdist.device.uncompiled import without_compiler


def install() -> None:
    """Put the stand-ins in place; a second call changes nothing."""
    if torch.cuda.is_available() or getattr(torch.cuda.current_device, "is_stand_in", False):
        return
    with without_compiler(), _without_wandb():
        from megatron.core.tensor_parallel import random as megatron_random

    def current_device() -> torch.device:
        return torch.device("cpu")

    current_device.is_stand_in = True  # type: ignore[attr-defined]  # marks that the work is done

    def get_state(*_: Any, **__: Any) -> torch.Tensor:
        return torch.get_rng_state()

    def set_state(state: torch.Tensor, *_: Any, **__: Any) -> None:
        torch.set_rng_state(state)

    def nothing(*_: Any, **__: Any) -> None:
        return None

    cuda: Any = torch.cuda
    cuda.current_device = current_device
    cuda.manual_seed = torch.manual_seed
    cuda.initial_seed = torch.initial_seed
    cuda.get_rng_state = get_state
    cuda.set_rng_state = set_state
    cuda.synchronize = nothing
    cuda.nvtx.range_push = nothing
    cuda.nvtx.range_pop = nothing
    megatron_random._get_cuda_rng_state = get_state
    megatron_random._set_cuda_rng_state = set_state
    # Inside a fork of its tracker megatron-core warns that the CPU's random state moved: here that is the one it moves.
    logging.getLogger("megatron.core.tensor_parallel.random").setLevel(logging.ERROR)


@contextlib.contextmanager
def _without_wandb() -> Iterator[None]:
    """Have megatron-core imported without wandb, which it needs for a trainer of its own."""
    has_wandb = "wandb" in sys.modules
    if not has_wandb:
        sys.modules["wandb"] = None  # type: ignore[assignment]  # an import of it fails
    try:
        yield
    finally:
        if not has_wandb:
            del sys.modules["wandb"]
