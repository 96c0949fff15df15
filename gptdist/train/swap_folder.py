"""Where a rank's optimizer state lies while it is offloaded to a disk: scratch files of one run, and buffers."""

import contextlib
import hashlib
import mmap
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptdist.config.run import RunConfig
from gptdist.mesh.groups import Mesh, max_over_ranks

BUFFERS = 4
"""Of a sub-group that is swapped in: weights, gradients and two moments."""


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


def buffer_bytes(groups: list[dict[str, Any]], sub_group_size: int) -> int:
    """Return the bytes of DeepSpeed's buffers for parameter ``groups`` that are cut into sub-groups under ZeRO-3."""
    largest = 0
    for group in groups:
        numel = 0
        for parameter in group["params"]:
            numel += parameter.ds_tensor.ds_numel
            largest = max(largest, numel)
            if numel >= sub_group_size:
                numel = 0
    return BUFFERS * -(-4 * largest // mmap.PAGESIZE) * mmap.PAGESIZE
