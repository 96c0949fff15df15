"""The run's ledger: one line for each thing that happened to it, over all attempts."""

import json
import time
from pathlib import Path
from typing import Any

LEDGER_NAME = "ledger.jsonl"


class Ledger:
    """Appends events to ``ledger.jsonl`` of a run; only rank 0 has one."""

    def __init__(self, folder: Path) -> None:
        """Open the ledger in ``folder``; the new attempt's number is one above the highest so far."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / LEDGER_NAME
        self.attempt = 1 + max((event.get("attempt", 0) for event in read_json_lines(self._path)), default=0)

    def write(self, event: str, **facts: Any) -> None:
        """Append ``event`` with its facts, the attempt and the time in seconds since 1970."""
        append_json_line(self._path, {"event": event, "attempt": self.attempt, "time": time.time(), **facts})


def append_json_line(path: Path, record: dict[str, Any]) -> None:
    """Append one line in one write, so that a killed process leaves no half line before another's."""
    with path.open("ab", buffering=0) as file:
        file.write(json.dumps(record).encode() + b"\n")


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
