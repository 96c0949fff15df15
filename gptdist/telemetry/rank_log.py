"""What a rank leaves in the folder of its launch: its log, where its threads are when asked, and why it failed.

Whoever starts the ranks names the folder; without one, ranks say everything on the console.
"""

import faulthandler
import json
import logging
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from gptdist.durable import write_whole
from gptdist.telemetry.heartbeat import node_name

LOG_DIR = "GPTDIST_LOG_DIR"
"""Environment variable that names the folder."""

STACKS_SIGNAL = signal.SIGUSR2
"""Makes a rank write where each of its threads is, even if it hangs in a call of C."""

FailureKind = Literal["error", "refused", "killed", "stalled", "lost"]


@dataclass(frozen=True)
class Failure:
    """Why a rank ended before its time."""

    kind: FailureKind
    rank: int | None
    """None where it is a whole node."""

    node: str
    time: float
    """Seconds since 1970."""

    step: int
    """Steps done."""

    phase: str
    text: str
    """A traceback, or lines for the user."""

    def heading(self) -> str:
        """Return whose failure it is, in words."""
        who = f"rank {self.rank} on {self.node}" if self.rank is not None else self.node
        what = {
            "error": "failed first",
            "refused": "refused to go on",
            "killed": "died first",
            "stalled": "made no progress",
            "lost": "was lost",
        }[self.kind]
        return f"{who} {what}, after step {self.step}, in '{self.phase}'"

    def tree(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    @classmethod
    def of_tree(cls, tree: dict[str, Any]) -> Self:
        """Return what ``tree`` made plain."""
        return cls(**tree)


def log_folder() -> Path | None:
    """Return the folder that this rank's launcher has named, if it has."""
    named = os.environ.get(LOG_DIR)
    return Path(named) if named else None


def open_log(folder: Path, rank: int) -> logging.Handler:
    """Have all that this process says go into its file in ``folder``; return what writes the log's lines there.

    Rank 0 goes on to speak on the console; of the others only their warnings come there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stacks = stacks_path(folder, rank).open("a")
    faulthandler.enable(file=stacks, all_threads=True)
    faulthandler.register(STACKS_SIGNAL, file=stacks, all_threads=True)
    path = log_path(folder, rank)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    if rank != 0:
        sys.stdout.flush()
        sys.stderr.flush()
        with path.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    return handler


def log_path(folder: Path, rank: int) -> Path:
    """Return where all that a rank says is kept."""
    return folder / f"rank_{rank:05d}.log"


def stacks_path(folder: Path, rank: int) -> Path:
    """Return where a rank writes its threads' stacks."""
    return folder / f"stacks_{rank:05d}.txt"


def record_failure(folder: Path, failure: Failure) -> None:
    """Leave a rank's failure for whoever started it, and in its log; where the disk refuses, the console has to do."""
    assert failure.rank is not None, "a rank records its own"
    try:
        with log_path(folder, failure.rank).open("a", encoding="utf-8") as file:
            file.write(f"{failure.text}\n")
        write_whole(folder / f"failure_{failure.rank:05d}.json", json.dumps(failure.tree()).encode())
    except OSError:
        sys.stderr.write(f"{failure.heading()}:\n{failure.text}\n")


def failure_now(kind: FailureKind, rank: int, *, step: int, phase: str, text: str) -> Failure:
    """Return the failure of this process."""
    return Failure(kind, rank, node_name(), time.time(), step, phase, text)


def read_failures(folder: Path) -> list[Failure]:
    """Return what ranks have left in ``folder``, earliest first."""
    found = []
    for path in folder.glob("failure_*.json"):
        try:
            found.append(Failure.of_tree(json.loads(path.read_bytes())))
        except (OSError, ValueError, TypeError):
            continue  # of a rank that was killed while it wrote it
    return sorted(found, key=lambda failure: failure.time)
