"""The run's ledger: one line for each thing that happened to it, over all attempts.

Each line ends with a digest of itself and of the digest before: what is edited, removed or put in is found.
"""

import hashlib
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptdist.telemetry.fence import check_current
from gptdist.telemetry.line_file import LineFile, append_whole, json_line

LEDGER_NAME = "ledger.jsonl"
SAVED = "checkpoint"
"""The event of a checkpoint that has got its name."""

ENDED = "ended"
"""The event of the end of an attempt that could not say so itself, as its launcher saw it."""

_DIGEST_KEY = b', "digest": "'


class Ledger:
    """Appends events to ``ledger.jsonl`` of a run; only rank 0 has one."""

    def __init__(self, folder: Path) -> None:
        """Open the ledger in ``folder``; the new attempt's number is one above the highest so far."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / LEDGER_NAME
        """The file."""
        self._lock = threading.Lock()  # a checkpoint may be recorded by the thread that wrote it
        content = self.path.read_bytes() if self.path.exists() else b""
        if content and not content.endswith(b"\n"):
            with self.path.open("ab") as file:
                file.write(b"\n")  # a line torn by a lost machine keeps to itself
        self._lines = LineFile(self.path)
        self._digest = last_digest(content)
        self.attempt = 1 + max((event.get("attempt", 0) for event in read_json_lines(self.path)), default=0)

    def write(self, event: str, **facts: Any) -> None:
        """Append ``event`` with its facts, the attempt and the time in seconds since 1970.

        Raises:
            TrainingError: another launch goes on with the run.
        """
        check_current()
        with self._lock:
            record = {"event": event, "attempt": self.attempt, "time": time.time(), **facts}
            self._digest = line_digest(self._digest, json.dumps(record).encode())
            self._lines.append({**record, "digest": self._digest})


def line_digest(before: str, line: bytes) -> str:
    """Return the digest of a line that is without one, behind a line with the digest ``before``."""
    return hashlib.sha256(before.encode() + line).hexdigest()[:16]


def split_digest(line: bytes) -> tuple[bytes, str] | None:
    """Return a line without its digest, and that; none if it has none."""
    body, key, rest = line.rpartition(_DIGEST_KEY)
    if not key or not rest.endswith(b'"}'):
        return None
    return body + b"}", rest[:-2].decode(errors="replace")


def last_digest(content: bytes) -> str:
    """Return the digest of the last line that has one."""
    for line in reversed(content.splitlines()):
        parts = split_digest(line)
        if parts is not None:
            return parts[1]
    return ""


def append_json_line(path: Path, record: dict[str, Any]) -> None:
    """Append one line in one write."""
    append_whole(path, json_line(record))


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return all records of a JSON-lines file; a last line torn by a kill is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


@dataclass(frozen=True)
class LedgerLine:
    """One event, and which line of the ledger it is."""

    number: int
    facts: dict[str, Any]


def read_checked(path: Path) -> tuple[list[LedgerLine], list[str], list[str]]:
    """Return the events of a ledger, the places where a line is torn, and those where it is not as it was written."""
    events: list[LedgerLine] = []
    torn: list[str] = []
    edited: list[str] = []
    before, content = "", path.read_bytes() if path.exists() else b""
    for number, line in enumerate(content.splitlines(), 1):
        parts, facts = split_digest(line), _parsed(line)
        if facts is None:
            torn.append(f"{path}:{number}: is no whole line; a crash tore it, or it was edited")
            continue
        if parts is None or parts[1] != line_digest(before, parts[0]):
            edited.append(
                f"{path}:{number}: does not follow from the line before; it was edited, or lines before it were "
                f"edited, removed or put in"
            )
        before = before if parts is None else parts[1]
        events.append(LedgerLine(number, facts))
    return events, torn, edited


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        facts = json.loads(line)
    except ValueError:
        return None
    return facts if isinstance(facts, dict) and isinstance(facts.get("attempt"), int) else None
