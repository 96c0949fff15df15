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
    """A folder for results, empty in the first round."""

    is_backwards: bool = False
    """Whether theirs runs first: every other round."""


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
    done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{script}: status {done.returncode}; its error is above")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Finished(cpu, after.ru_maxrss * 1024, json.loads(done.stdout.strip().splitlines()[-1]))


def run_ours(module: str, *arguments: str) -> Finished:
    """Run a module of this repository in a fresh process."""
    return run_script(sys.executable, module, *arguments)
