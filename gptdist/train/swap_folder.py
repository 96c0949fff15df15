"""Where a rank's optimizer state and weights lie while they are offloaded to a disk: files of one run, and buffers."""

import contextlib
import hashlib
import math
import mmap
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from gptdist.config.run import RunConfig
from gptdist.config.vocabulary import padded_vocab_size
from gptdist.mesh.groups import Mesh, max_over_ranks
from gptdist.model.hf_names import logical_shapes
from gptdist.model.host_memory import BUFFERS
from gptdist.model.parameters import split_dim

NO_SPARE_WEIGHTS = {
    "stage3_max_live_parameters": 0,
    "stage3_max_reuse_distance": 0,
    "stage3_prefetch_bucket_size": 0,
}
"""Each parameter in use holds a buffer: DeepSpeed stops where it keeps some for later and none is free. Its prefetch
from a disk asks twice for what is in one already."""


def swap_folder(config: RunConfig, rank: int) -> Path:
    """Return the folder of ``rank`` below ``memory.nvme_path``; runs of one name in two folders do not share it."""
    assert config.memory.nvme_path is not None, "checked with the config"
    run = hashlib.sha256(str(config.folder.resolve()).encode()).hexdigest()[:12]
    return config.memory.nvme_path / f"{config.name}-{run}" / f"rank_{rank:05d}"


@contextlib.contextmanager
def scratch(config: RunConfig, mesh: Mesh, local_rank: int) -> Iterator[None]:
    """Remove what a killed job has left of the run's files, and in the end this rank's. Collective: all ranks call it.

    Communication: one number over all ranks, before any of them writes.
    """
    if not config.memory.swaps:
        yield
        return
    own = swap_folder(config, mesh.rank)
    if local_rank == 0:  # the job may have had other ranks
        shutil.rmtree(own.parent, ignore_errors=True)
    max_over_ranks(0)
    try:
        yield
    finally:
        shutil.rmtree(own, ignore_errors=True)
        with contextlib.suppress(OSError):  # other ranks still have theirs
            own.parent.rmdir()


def swap_settings(config: RunConfig, mesh: Mesh, what: str) -> dict[str, Any]:
    """Return DeepSpeed's settings for ``what`` is offloaded to a disk: the optimizer or the parameters."""
    settings = {"nvme_path": str(swap_folder(config, mesh.rank)), "buffer_count": BUFFERS[what]}
    if what == "offload_param":
        settings |= {"buffer_size": _largest_part(config, mesh), "max_in_cpu": 0}
    return settings


def parameter_bytes(config: RunConfig, mesh: Mesh, dtype: torch.dtype) -> int:
    """Return the bytes of DeepSpeed's buffers for parameters in ``dtype``, which it locks in memory first of all."""
    if config.memory.offload_parameters != "nvme":
        return 0
    return _whole_pages(BUFFERS["offload_param"] * _largest_part(config, mesh) * dtype.itemsize)


def locked_bytes(
    config: RunConfig, mesh: Mesh, dtype: torch.dtype, groups: list[dict[str, Any]], sub_group_size: int
) -> int:
    """Return the bytes of all its buffers, for parameter ``groups`` that are cut into sub-groups under ZeRO-3."""
    largest = 0
    for group in groups:
        numel = 0
        for parameter in group["params"]:
            numel += parameter.ds_tensor.ds_numel
            largest = max(largest, numel)
            if numel >= sub_group_size:
                numel = 0
    found = parameter_bytes(config, mesh, dtype)
    if found:  # one more, through which updated weights go; DeepSpeed makes room for all ranks' parts of them
        found += _whole_pages(largest * mesh.layout.num_copies * dtype.itemsize)
    if config.memory.offload_optimizer == "nvme":
        found += BUFFERS["offload_optimizer"] * _whole_pages(4 * largest)
    return found


def _whole_pages(num_bytes: int) -> int:
    return -(-num_bytes // mmap.PAGESIZE) * mmap.PAGESIZE


def _largest_part(config: RunConfig, mesh: Mesh) -> int:
    """Return the most values that a rank keeps of one parameter under ZeRO-3."""
    model, size = config.model, mesh.layout.tensor_parallel_size
    padded = model.model_copy(update={"vocab_size": padded_vocab_size(model.vocab_size, size)})
    numels = (
        math.prod(shape) // (1 if split_dim(name) is None else size) for name, shape in logical_shapes(padded).items()
    )
    return -(-max(numels) // mesh.layout.num_copies)
