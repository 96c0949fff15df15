"""How much memory this process has needed."""

from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def peak_memory_bytes(device: torch.device) -> int | None:
    """Return the most that was in use at once since the process began; None where nobody counts.

    On a GPU what its tensors took of it, on a CPU the process's resident memory, libraries and read files included.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if not _STATUS.exists():  # Linux only
        return None
    peak = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024
