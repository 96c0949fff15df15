"""A request to stop that arrives from outside: noticed at once, acted on between two steps, by all ranks together.

It may be a signal to any rank, a file ``STOP`` in the run's folder, or the end of the time that the job has; the last
two are looked for by rank 0 alone, as a shared folder is slow to ask and clocks differ.
"""

import os
import signal
import time
from enum import IntEnum
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
STOP_NAME = "STOP"
STOP_AFTER = "GPTDIST_STOP_AFTER_SECONDS"
"""Environment variable: how long after its start a rank stops."""


class StopReason(IntEnum):
    """Why the run stops; where ranks were asked for different reasons, the highest counts."""

    NONE = 0
    TIME_LIMIT = 1
    SIGNAL = 2
    """From a scheduler, by SIGTERM or SIGUSR1."""

    INTERRUPT = 3
    KILL_FILE = 4

    @property
    def is_by_person(self) -> bool:
        """Whether nothing should begin the run again by itself."""
        return self in {StopReason.INTERRUPT, StopReason.KILL_FILE}

    @property
    def text(self) -> str:
        """How a log line says it."""
        return {
            StopReason.NONE: "nothing",
            StopReason.TIME_LIMIT: "its time limit",
            StopReason.SIGNAL: "a signal (SIGTERM or SIGUSR1)",
            StopReason.INTERRUPT: "Ctrl-C (SIGINT)",
            StopReason.KILL_FILE: f"the file {STOP_NAME} in its folder",
        }[self]


class StopSignal:
    """Remembers that this process was asked to stop; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self.number = 0
        self._begin = time.monotonic()
        self._kill_file: Path | None = None
        self._deadline: float | None = None

    def listen(self) -> None:
        """Take over the signals that ask for a stop."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def watch(self, folder: Path) -> None:
        """On rank 0: look for the file in the run's ``folder``, and at the clock."""
        self._kill_file = folder / STOP_NAME
        seconds = os.environ.get(STOP_AFTER)
        self._deadline = self._begin + float(seconds) if seconds else None

    @property
    def reason(self) -> StopReason:
        """Why this rank was asked to stop, if it was; another may have been while this one was not."""
        found = StopReason.NONE
        if self._deadline is not None and time.monotonic() >= self._deadline:
            found = StopReason.TIME_LIMIT
        if self.number:
            found = StopReason.INTERRUPT if self.number == signal.SIGINT else StopReason.SIGNAL
        if self._kill_file is not None and self._kill_file.exists():
            found = StopReason.KILL_FILE
        return found

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
