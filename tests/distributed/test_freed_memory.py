"""On a CPU, what tensors free is used again by the next ones: no step faults its memory in anew."""

import platform
import resource

import pytest
import torch

from gptdist.device.device import keep_freed_memory
from tests.support.ranks import run_ranks

BLOCKS = 4
BLOCK_BYTES = 64 << 20
"""Of one block; by default glibc gives each of this size back to the system."""


def _faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.zeros(BLOCK_BYTES // 4) for _ in range(BLOCKS)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def _faults_fall() -> None:
    pages = BLOCKS * BLOCK_BYTES // resource.getpagesize()
    rounds = 10  # the heap grows around what lies in it, a few times before all blocks fit
    assert min(_faults() for _ in range(rounds)) > pages / 2, "every time, as glibc does by default"
    keep_freed_memory()
    assert min(_faults() for _ in range(rounds)) < pages / 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_memory_is_kept_for_the_next_tensors() -> None:
    run_ranks(1, _faults_fall)
