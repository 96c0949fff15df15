"""How much memory this machine, or the container that this process is in, has left."""

from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def available_bytes(own_cgroup: Path = _OWN_CGROUP, cgroups: Path = _CGROUPS) -> int:
    """Return the bytes that can still be taken: of the machine, and of each control group (v2) with a limit."""
    lefts = [int(psutil.virtual_memory().available)]
    for line in own_cgroup.read_text().splitlines() if own_cgroup.exists() else ():
        if line.startswith("0::"):
            group = cgroups / line.removeprefix("0::").strip().lstrip("/")
            while group.is_relative_to(cgroups):
                lefts += _left_of(group)
                group = group.parent
    return max(0, min(lefts))


def _left_of(group: Path) -> list[int]:
    """Return what a group has left, or nothing where it has no limit; files that it only caches count as left."""
    try:
        limit, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
        lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return []
    cached = sum(int(value) for name, value in lines if name == "inactive_file")
    return [] if limit == "max" else [int(limit) - used + cached]
