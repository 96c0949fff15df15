"""Requests to stop that come to a launcher as signals, to be passed on by other ways."""

import signal
import time

from launch.agent import REQUESTS

_LETTER = {number: letter for letter, number in REQUESTS.items()}
_POLL_SECONDS = 0.2


class Requests:
    """Requests to stop that come to this process as signals."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self.numbers: list[signal.Signals] = []
        self._new: list[signal.Signals] = []

    def __enter__(self) -> "Requests":
        """Take over the signals that ask for a stop."""
        self._before = {number: signal.signal(number, self._on_signal) for number in _LETTER}
        return self

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def by_person(self) -> bool:
        """Whether one was Ctrl-C."""
        return signal.SIGINT in self.numbers

    def _on_signal(self, number: int, _: object) -> None:
        self.numbers.append(signal.Signals(number))
        self._new.append(signal.Signals(number))

    def letters(self) -> str:
        """Return those that have come since this was last called."""
        new, self._new = self._new, []
        return "".join(_LETTER[number] for number in new)

    def pause(self, seconds: float) -> None:
        """Wait so long, or until one has come."""
        deadline = time.monotonic() + seconds
        while not self.numbers and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
