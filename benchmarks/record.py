"""What one run of a comparison found, kept as JSON so that the page can be made again from it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.comparison import Comparison


@dataclass(frozen=True)
class Record:
    """A comparison's run, or why it did not take place."""

    name: str
    command: str = ""
    began: str = ""
    """ISO 8601, UTC."""

    seconds: float = 0.0
    commit: str = ""
    load: float = 0.0
    """Programs that were running on the machine in the minute before."""

    machine: dict[str, Any] = field(default_factory=dict)
    ours: dict[str, str] = field(default_factory=dict)
    """Versions."""

    peers: dict[str, str] = field(default_factory=dict)
    """Versions in the peers' environment."""

    is_quick: bool = False
    problem: str = ""
    """Why it was not run to its end."""

    comparisons: Sequence[Comparison] = ()

    def write(self, folder: Path) -> None:
        """Write it, in place of an older one of this name."""
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{self.name}.json.partial"
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        partial.rename(folder / f"{self.name}.json")


def read_records(folder: Path) -> dict[str, Record]:
    """Return the records of a folder by name."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        tree = json.loads(path.read_text(encoding="utf-8"))
        comparisons = [Comparison(**one) for one in tree.pop("comparisons")]
        found[tree["name"]] = Record(**tree, comparisons=comparisons)
    return found
