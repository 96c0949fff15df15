"""DeepSpeed's ``async_io``, which moves tensors between memory and files: whether it can work here, and its build.

Imports torch only to load it, so that what is missing is said before ranks start.
"""

import importlib.util
import logging
import math
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gptdist.config.memory import MemoryConfig
from gptdist.device.joined_sources import joined_sources
from gptdist.errors import TrainingError

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""How long another job may compile before that is said; torch also locks what it finds compiled, for an instant."""

POLL_SECONDS = 0.1

_CAP_IPC_LOCK = 14
"""Number of the capability, see capabilities(7)."""

_PROGRAM = "#include <libaio.h>\nint main(void) { return io_submit(0, 0, 0) == -1; }\n"


def swap_problems(memory: MemoryConfig) -> list[str]:
    """Return why nothing can be offloaded to files on this machine."""
    if not memory.swaps or memory.nvme_path is None:
        return []
    return _folder_problems(memory.nvme_path) + _library_problems()


def load_async_io(local_rank: int) -> None:
    """Load ``async_io``; the first time on a machine it is compiled, which takes minutes. Every local rank calls it.

    Raises:
        TrainingError: it cannot be compiled.
    """
    # Build tools are called by name, and an environment that is not activated has none of its own.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    import deepspeed
    from deepspeed.ops.op_builder import AsyncIOBuilder
    from torch.utils.cpp_extension import _get_build_directory

    if local_rank == 0 and not _is_installed():
        for name in ("pin_memory", "async_io"):
            folder = Path(_get_build_directory(name, verbose=False))
            _await_unlocked(folder / "lock")
            if not (folder / f"{name}.so").exists():
                logger.info("compiling DeepSpeed's %s into %s, once on this machine: it takes minutes", name, folder)
    try:
        with joined_sources(deepspeed.__version__):
            AsyncIOBuilder().load(verbose=False)
    except (RuntimeError, ImportError) as error:
        raise TrainingError(
            f"memory.nvme_path: swapping needs DeepSpeed's async_io, which does not load "
            f"({' '.join(str(error).split())[:300]}); mend that, or offload to cpu"
        ) from error


def check_locked_memory(num_bytes: int) -> None:
    """Refuse buffers that the system would not lock: DeepSpeed's C++ code aborts there.

    Raises:
        TrainingError: a process may lock less than ``num_bytes``.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit != resource.RLIM_INFINITY and limit < num_bytes and not _may_lock_all():
        raise TrainingError(
            f"memory.nvme_path: swapping needs {num_bytes} bytes of locked memory on this rank, the limit is "
            f"{limit}; raise it (ulimit -l, memlock in limits.conf), or lower "
            f"deepspeed.zero_optimization.sub_group_size"
        )


def _may_lock_all(status: Path = Path("/proc/self/status")) -> bool:
    """Return whether the limit is none for this process, by its capability CAP_IPC_LOCK."""
    lines = status.read_text().splitlines() if status.exists() else []
    effective = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    return bool(effective >> _CAP_IPC_LOCK & 1)


def _await_unlocked(lock: Path) -> None:
    """Wait until nobody compiles, as torch would without a word, for ever where a build was killed."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while lock.exists():
        time.sleep(POLL_SECONDS)
        if time.monotonic() > deadline:
            deadline = math.inf
            logger.warning("waiting: %s says that another job compiles; if none does, it was killed, remove it", lock)


def _folder_problems(folder: Path) -> list[str]:
    if not folder.is_dir():
        return [f"memory.nvme_path: {folder} is no folder; make it, on a local disk of each machine"]
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".gptdist-") as file:
            os.close(os.open(file.name, os.O_RDWR | getattr(os, "O_DIRECT", 0)))
    except OSError as error:
        return [
            f"memory.nvme_path: {folder} cannot be written to past the page cache ({error.strerror}); "
            f"name a folder of yours on a local disk"
        ]
    return []


def _library_problems() -> list[str]:
    if _is_installed():
        return []
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        return ["memory.nvme_path: swapping needs a C++ compiler to build DeepSpeed's async_io; install g++"]
    with tempfile.TemporaryDirectory() as folder:
        flags = [shlex.split(os.environ.get(name, "")) for name in ("CFLAGS", "LDFLAGS")]  # DeepSpeed reads them too
        command = [compiler, *flags[0], "-x", "c++", "-", "-o", f"{folder}/linked", *flags[1], "-laio"]
        if subprocess.run(command, input=_PROGRAM.encode(), capture_output=True, check=False).returncode == 0:
            return []
    return [
        "memory.nvme_path: swapping needs libaio and its header, which do not link here; "
        "install them (apt install libaio-dev, dnf install libaio-devel), or offload to cpu"
    ]


def _is_installed() -> bool:
    """Return whether DeepSpeed was installed with the op compiled."""
    found = importlib.util.find_spec("deepspeed")
    places = [Path(place) for place in (found.submodule_search_locations or ())] if found is not None else []
    return any(next(place.glob("ops/aio/async_io_op*.so"), None) is not None for place in places)
