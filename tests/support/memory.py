"""Host memory that a piece of work takes; call it in a process of its own, as a rank of ``run_ranks``."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def peak_bytes(work: Callable[..., Any], *arguments: Any) -> int:
    """Return how much memory ``work(*arguments)`` takes at most; mapped files do not count."""
    before, peaks, done = _anonymous_bytes(), [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peaks.append(max(peaks.pop(), _anonymous_bytes()))
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work(*arguments)
    finally:
        done.set()
        watcher.join()
    return peaks[0] - before


def _anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
