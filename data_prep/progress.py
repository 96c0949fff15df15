"""What a preparation run says while it runs: lines that stay, and one that is rewritten where there is a terminal."""

import time
from typing import TextIO

_EVERY_SECONDS = 0.2
_CLEAR = "\r\x1b[K"


class Progress:
    """Write to ``stream``; the rewritten line appears on a terminal only."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._step = ""
        self._done = self._done_before = self._total = 0
        self._started = self._shown = time.monotonic()

    def note(self, text: str) -> None:
        """Write a line that stays."""
        self._stream.write(f"{_CLEAR if self._is_terminal else ''}{text}\n")
        self._stream.flush()

    def begin(self, step: str, *, total: int, done: int) -> None:
        """Begin a step of ``total`` tasks, ``done`` of them by an earlier run."""
        self._step, self._total, self._done, self._done_before = step, total, done, done
        self._started = time.monotonic()
        self._show()

    def advance(self) -> None:
        """Count a finished task, and show it at most five times a second."""
        self._done += 1
        now = time.monotonic()
        if now - self._shown >= _EVERY_SECONDS or self._done == self._total:
            self._shown = now
            self._show()

    def end(self) -> None:
        """Remove the rewritten line."""
        if self._is_terminal:
            self._stream.write(_CLEAR)
            self._stream.flush()

    def _show(self) -> None:
        if not self._is_terminal:
            return
        seconds = time.monotonic() - self._started
        here = self._done - self._done_before
        left = f", about {seconds / here * (self._total - self._done):,.0f} s left" if here else ""
        self._stream.write(f"{_CLEAR}{self._step}: {self._done:,} of {self._total:,} tasks{left}")
        self._stream.flush()
