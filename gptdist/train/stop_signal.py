"""A request to stop that arrives from outside: noticed at once, acted on between two steps, by all ranks together."""

import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopSignal:
    """Remembers that this process was asked to stop; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self.number = 0

    def listen(self) -> None:
        """Take over the signals that ask for a stop."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    @property
    def was_seen(self) -> bool:
        """Whether this rank was asked; another may have been while this one was not."""
        return self.number != 0

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
