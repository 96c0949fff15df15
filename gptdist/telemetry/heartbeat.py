"""What a rank is doing right now, in a small file that a process beside it reads even if the rank hangs or is gone.

The rank writes where it is into shared memory, between two of its own instructions: no thread, no lock and no call to
the system. The file lies on the node's own disk or memory, never on a network.
"""

import mmap
import os
import socket
import struct
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

HEARTBEAT_DIR = "GPTDIST_HEARTBEAT_DIR"
"""Environment variable that names the folder, but for the node's name; a rank without it writes none."""

NODE_NAME = "GPTDIST_NODE_NAME"
"""Environment variable: what whoever started the ranks calls this machine."""

Phase = Literal[
    "start",
    "join",
    "build",
    "step",
    "data",
    "forward_backward",
    "communication",
    "optimizer",
    "evaluation",
    "checkpoint",
    "finish",
    "done",
    "stopped",
    "requeue",
    "refused",
    "failed",
]

STARTING: tuple[Phase, ...] = ("start", "join", "build")
ENDED: tuple[Phase, ...] = ("done", "stopped", "requeue", "refused", "failed")
WAITING: tuple[Phase, ...] = ("communication", "join")
"""Phases in which a rank waits for others, so that it is not the one to blame."""

_LAYOUT = struct.Struct("<QqqqddQ24s")
_TRIES = 100


@dataclass(frozen=True)
class Beat:
    """What one rank last said."""

    rank: int
    pid: int
    step: int
    """Steps done."""

    phase: Phase
    since: float
    """When it came into the phase, by the node's monotonic clock, in seconds."""

    work_seconds: float
    """Time in all steps so far in which it did not wait for other ranks."""

    progress: int
    """How often it has said anything; a rank that hangs says nothing."""

    def tree(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    @classmethod
    def of_tree(cls, tree: dict[str, Any]) -> Self:
        """Return what ``tree`` made plain."""
        return cls(**tree)


class Heartbeat:
    """The writing side; without a folder it does nothing."""

    def __init__(self, folder: Path | None, rank: int) -> None:
        """Begin in phase ``start``, with nothing done."""
        self._map: mmap.mmap | None = None
        self.step = 0
        """Steps done."""

        self._progress, self._work_seconds = 0, 0.0
        self.phase: Phase = "start"
        """The newest."""

        if folder is not None:
            path = _path(folder, rank)
            with path.open("w+b") as file:
                file.truncate(_LAYOUT.size)
                self._map = mmap.mmap(file.fileno(), _LAYOUT.size)
        self.enter("start")

    @classmethod
    def of_environment(cls, rank: int) -> Self:
        """Return that of a rank whose launcher may have named a folder."""
        named = os.environ.get(HEARTBEAT_DIR)
        return cls(node_folder(named) if named else None, rank)

    def enter(self, phase: Phase) -> None:
        """Say that the rank is in ``phase`` from now on."""
        self.phase = phase
        if self._map is None:
            return
        self._progress += 1
        # Odd while it is being written: what a reader sees then, it reads again.
        mark = 2 * self._progress
        struct.pack_into("<Q", self._map, 0, mark - 1)
        _LAYOUT.pack_into(
            self._map,
            0,
            mark - 1,
            os.getpid(),
            self.step,
            self._progress,
            time.monotonic(),
            self._work_seconds,
            mark,
            phase.encode(),
        )
        struct.pack_into("<Q", self._map, 0, mark)

    def step_done(self, step: int, work_seconds: float) -> None:
        """Say that ``step`` is done, and how long this rank worked for it without waiting for others."""
        self.step = step
        self._work_seconds += work_seconds
        self.enter("step")


def node_folder(named: str) -> Path:
    """Return the folder of this node: what a launch names is the same on all, and two may share a disk."""
    return Path(f"{named}-{node_name()}")


def _path(folder: Path, rank: int) -> Path:
    return folder / f"rank_{rank:05d}"


def read_beats(folder: Path) -> list[Beat]:
    """Return the beats of all ranks with a file in ``folder``, by rank."""
    found = []
    for path in sorted(folder.glob("rank_*")):
        beat = _read(path)
        if beat is not None:
            found.append(beat)
    return found


def _read(path: Path) -> Beat | None:
    for _ in range(_TRIES):
        try:
            content = path.read_bytes()
        except OSError:
            return None
        if len(content) < _LAYOUT.size:
            return None  # it is being made
        first, pid, step, progress, since, work_seconds, last, phase = _LAYOUT.unpack(content[: _LAYOUT.size])
        if first == last and first:
            name = phase.rstrip(b"\0").decode()
            return Beat(int(path.name.removeprefix("rank_")), pid, step, name, since, work_seconds, progress)
    return None


def node_name() -> str:
    """Return this machine's name, as it stands in records."""
    return os.environ.get(NODE_NAME) or os.environ.get("SLURMD_NODENAME") or socket.gethostname()
