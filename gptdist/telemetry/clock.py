"""Where a rank's time goes: seconds by part of the work, each second in one part only."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch._C._distributed_c10d import Work

from gptdist.telemetry.heartbeat import Phase

Part = Literal["data", "forward_backward", "communication", "optimizer", "evaluation", "checkpoint"]

WHOLE: tuple[Part, ...] = ("evaluation", "checkpoint")
"""Parts between steps; what happens within them is theirs, waits for other ranks included."""

_ON_HOST: tuple[Part, ...] = ("data", *WHOLE)

_NO_WORK: tuple[Part | None, ...] = (None, "communication", *WHOLE)
"""Parts that say nothing of how fast this rank is."""


class StepClock:
    """Adds up the seconds of each part; of parts within one another, the inner one has its time to itself.

    On a GPU, whose work is only queued when a call returns, forward, backward and update are timed by events on its
    stream, which are read with ``take`` and make nothing wait before.
    """

    def __init__(self, device: torch.device, tell: Callable[[Phase], None] = lambda _: None) -> None:
        """Time the work of ``device``; ``tell`` hears of each part that begins or is come back to."""
        self._tell = tell
        self._on_gpu = device.type == "cuda"
        self._seconds: dict[Part, float] = {}
        self._events: list[tuple[Part, Part | None, Any, Any]] = []
        self._open: list[Part] = []
        self._sees_waits = False
        self._work_seconds = 0.0

    @contextlib.contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Count the time within as ``name``'s."""
        outer = self._open[-1] if self._open else None
        if outer in WHOLE:
            yield
            return
        self._open.append(name)
        self._tell(name)
        begin: Any = None
        if self._on_gpu and name not in _ON_HOST:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
        started = time.perf_counter()
        try:
            yield
        finally:
            self._open.pop()
            self._tell(outer or "step")
            if begin is None:
                self._add(name, outer, time.perf_counter() - started)
            else:
                end.record()
                self._events.append((name, outer, begin, end))

    @contextlib.contextmanager
    def watching_collectives(self) -> Iterator[None]:
        """Count as communication how long this rank is held up in collectives while the context is open.

        Every call that is not asynchronous ends in ``Work.wait``, and so does the use of one that is; this is where
        gloo holds the caller up. NCCL makes the stream wait instead, and nothing is counted then.
        """
        if self._on_gpu:
            yield
            return
        wait = Work.wait

        def timed_wait(work: Work, *arguments: Any, **options: Any) -> bool:
            with self.part("communication"):
                return wait(work, *arguments, **options)

        Work.wait = timed_wait  # type: ignore[method-assign,assignment]
        self._sees_waits = True
        try:
            yield
        finally:
            Work.wait = wait  # type: ignore[method-assign]
            self._sees_waits = False

    def take(self) -> dict[Part, float | None]:
        """Return the seconds of each part since the last call; communication is None where it cannot be seen."""
        for name, outer, begin, end in self._events:
            end.synchronize()
            self._add(name, outer, begin.elapsed_time(end) / 1000)
        self._events.clear()
        parts = Part.__args__  # type: ignore[attr-defined]
        taken: dict[Part, float | None] = {part: self._seconds.get(part, 0.0) for part in parts}
        if not self._sees_waits:
            taken["communication"] = None
        self._seconds.clear()
        return taken

    def take_work_seconds(self) -> float:
        """Return the seconds since the last call in which this rank was at work on steps, not waiting for others.

        On a GPU they come with ``take``, and the waits of its stream are among them.
        """
        taken, self._work_seconds = self._work_seconds, 0.0
        return taken

    def _add(self, name: Part, outer: Part | None, seconds: float) -> None:
        self._work_seconds += (name not in _NO_WORK) * seconds - (outer not in _NO_WORK) * seconds
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
        if outer is not None:
            self._seconds[outer] = self._seconds.get(outer, 0.0) - seconds
