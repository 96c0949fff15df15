"""What each rank of a benchmark does first, and how it looks at its memory."""

import ctypes
import os
import warnings
from pathlib import Path


def begin_rank() -> None:
    """Prepare the libraries and meet the other ranks, as ``Contender`` told where. Collective: every rank calls it."""
    warnings.filterwarnings("ignore")
    import torch.distributed as dist

    from gptdist.device import megatron_on_cpu
    from gptdist.device.device import prepare_deepspeed

    prepare_deepspeed()
    megatron_on_cpu.install()
    dist.init_process_group(
        "gloo",
        init_method=os.environ["BENCHMARK_STORE"],
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )


def give_back_freed_memory() -> None:
    """Have each block of 64 KiB or more from the system for itself, as long as it is in use (glibc's mallopt(3))."""
    trim_threshold, mmap_threshold, mmap_max = -1, -3, -4
    libc = ctypes.CDLL(None)
    for setting, value in ((mmap_max, 1_000_000), (mmap_threshold, 65536), (trim_threshold, 65536)):
        assert libc.mallopt(setting, value) == 1, f"mallopt refuses {setting}"


def resident_bytes(what: str) -> int:
    """Return resident memory: VmRSS now, VmHWM the highest so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{what}:")).split()[1]) * 1024


def forget_highest() -> int:
    """Begin ``resident_bytes("VmHWM")`` anew, and return what is resident now; what is free goes back first."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident_bytes("VmRSS")
