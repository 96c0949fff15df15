"""Runs whose optimizer state lies on a disk: tests that need DeepSpeed's ``async_io``, compiled once on a machine."""

from pathlib import Path
from typing import Any

import pytest

from gptdist.config.memory import MemoryConfig
from gptdist.device.swapping import load_async_io, swap_problems
from tests.support.datasets import LLAMA, run_tree
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks

MODEL = LLAMA | {"hidden_size": 256, "ffn_hidden_size": 1024}
"""DeepSpeed swaps nothing below 1 MiB: this has several sub-groups above it on one and on two ranks, and some below;
so is the first matrix of each MLP above it."""

SUB_GROUP_SIZE = 270_000
BUILD_SECONDS = 580


def need_async_io(folder: Path) -> None:
    """Skip the test where nothing can be swapped to ``folder``, and compile what is not compiled yet."""
    problems = swap_problems(MemoryConfig(offload_optimizer="nvme", nvme_path=folder))
    if problems:
        pytest.skip("; ".join(problems))
    run_ranks(1, load_async_io, 0, timeout_seconds=BUILD_SECONDS)


def swapped_tree(folder: Path, name: str, layout: TestedLayout, **changes: Any) -> dict[str, Any]:
    """Return the config of a run in ``folder``/``name`` whose optimizer state is swapped to ``folder``/disk."""
    (folder / "disk").mkdir(exist_ok=True)
    defaults = {"model": MODEL, "memory": {"offload_optimizer": "nvme", "nvme_path": str(folder / "disk")}}
    return run_tree(
        folder,
        deepspeed={"zero_optimization": {"sub_group_size": SUB_GROUP_SIZE}},
        run_dir=str(folder / name),
        **{**defaults, **layout.sections(), **changes},
    )
