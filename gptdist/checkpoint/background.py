"""A thread that works on the newest of what it is given."""

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")


class Background(Generic[ItemT]):
    """Does ``work`` on one item at a time, in a thread that is there while there is something to do.

    At most one item waits: a newer one takes its place. The process does not wait for the thread when it ends.
    """

    def __init__(self, name: str, work: Callable[[ItemT], None]) -> None:
        """Start nothing yet."""
        self._name = name
        self._work = work
        self._changed = threading.Condition()
        self._waiting: list[ItemT] = []
        self._is_working = False

    def give(self, item: ItemT) -> ItemT | None:
        """Have ``item`` worked on next, and return the one that it replaced."""
        with self._changed:
            replaced = self.take_back()
            self._waiting.append(item)
            if not self._is_working:
                self._is_working = True
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
        return replaced

    def take_back(self) -> ItemT | None:
        """Return the item that waits, which is not worked on then."""
        with self._changed:
            return self._waiting.pop() if self._waiting else None

    def settle(self, timeout_seconds: float | None = None) -> bool:
        """Wait until there is nothing to do, and return whether it came to that in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._is_working, timeout_seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                item = self.take_back()
                if item is None:
                    self._is_working = False
                    self._changed.notify_all()
                    return
            try:
                self._work(item)
            except Exception:  # a thread's outermost frame: what is not expected keeps its traceback
                logger.exception("%s failed", self._name)
