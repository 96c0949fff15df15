"""What tensors have freed in a rank on a CPU: kept for the next ones, and given back where it fits none."""

import ctypes
import platform
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Numbers of mallopt(3)'s settings: bytes free at the heap's end before it shrinks; blocks outside the heap."""

_STATM = Path("/proc/self/statm")
"""Linux: the process's memory in pages; the second number is what is resident."""

GROWTH = 1.5
"""Times what the first step has left resident, after which free memory is given back."""


def is_glibc() -> bool:
    """Return whether the C library is the one that has these settings."""
    return platform.libc_ver()[0] == "glibc"


def keep_freed_memory() -> None:
    """Have the C library keep what tensors free for the next ones, where it is glibc, for training on a CPU.

    By default it gives large blocks back to the system, which then hands out, and fills with zeros, page after page at
    every step: some 300,000 page faults, a tenth of a step's time, in a model of 23 M parameters.
    """
    if is_glibc():
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
        libc.mallopt(_M_MMAP_MAX, 0)


class FreedMemory:
    """Sees to it that a rank which keeps freed memory does not grow from step to step.

    Up to glibc 2.37 a tensor's aligned block is cut out of a larger one, and while the cuttings are in use the next
    tensor of that size does not fit in its place: a rank with 1 M parameters was seen to grow by 4 MB a step.
    """

    def __init__(self, *, is_used: bool = True) -> None:
        """Expect what the first look finds; unless ``is_used``, no look does anything."""
        self._is_used = is_used and is_glibc() and _STATM.exists()
        self._allowed = 0.0
        self._gave_back = True

    def look(self) -> None:
        """Give all free memory back if the process has grown, and let it have what it still holds at the next look.

        It takes some microseconds, and milliseconds where there is something to give back.
        """
        if not self._is_used:
            return
        resident_pages = int(_STATM.read_text().split()[1])
        if resident_pages <= self._allowed:
            self._gave_back = False
        elif self._gave_back:  # so much is in use
            self._allowed, self._gave_back = GROWTH * resident_pages, False
        else:
            ctypes.CDLL(None).malloc_trim(0)
            self._gave_back = True
