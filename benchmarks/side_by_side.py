"""Two programs on the same input, in CPU seconds: ours in a fresh process, the other in its own interpreter."""

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PEERS = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Corpus:
    """What is measured on."""

    folder: Path
    """Holds ``pages.warc.gz``, ``pages/*.html`` and ``text.jsonl`` (keys text, url, id)."""

    scratch: Path
    """An empty folder for results."""


@dataclass(frozen=True)
class Ratio:
    """One line of the table."""

    name: str
    ours: float
    theirs: float
    unit: str
    """Such as ``docs/CPU-second``; larger is better."""

    target: float
    note: str = ""

    def line(self) -> str:
        """Return the line as printed."""
        ratio = self.ours / self.theirs if self.theirs else float("nan")
        reached = "reached" if ratio >= self.target else "MISSED"
        return (
            f"{self.name:<44} {self.ours:>12,.1f} {self.theirs:>12,.1f} {self.unit:<18} "
            f"{ratio:>8.2f} x (target {self.target:g} x, {reached}) {self.note}"
        )


@dataclass(frozen=True)
class Finished:
    """A program's cost and its last line of output, which is JSON."""

    cpu_seconds: float
    """User and system time of the process and its children, start-up included."""

    peak_bytes: int
    result: dict[str, Any]


def run_script(python: str, script: Path | str, *arguments: str) -> Finished:
    """Run a script, or a module of ours where ``script`` is a name with dots, on one thread a library."""
    what = [str(script)] if isinstance(script, Path) else ["-m", script]
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    environment = {**os.environ, **single, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    argv = [python, *what, *arguments]
    done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Finished(cpu, after.ru_maxrss * 1024, json.loads(done.stdout.strip().splitlines()[-1]))


def run_ours(module: str, *arguments: str) -> Finished:
    """Run a module of this repository in a fresh process."""
    return run_script(sys.executable, module, *arguments)
