"""What a figure was measured on: machine, versions, commit."""

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE_NAME = "benchmarks/RESULTS.md"
"""Of the repository; the page that is made of figures does not change what is measured."""

OURS = ("torch", "deepspeed", "megatron-core", "numpy", "transformers", "torchao")
"""Distributions in our environment whose versions a figure depends on."""

THEIRS = ("torch", "transformers", "accelerate", "litgpt", "lightning", "datatrove", "spacy", "trafilatura")
THEIRS += ("datasets", "tokenizers", "llmcompressor")
"""Distributions in the peers' environment."""

_VECTOR = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "asimd", "sve", "bf16")
_ASK = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {"python": sys.version.split()[0]}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def machine() -> dict[str, Any]:
    """Return this machine's facts."""
    facts = _cpu_facts()
    return {
        "cpu": facts.get("model name", platform.processor() or platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "cpu_flags": [flag for flag in _VECTOR if flag in facts.get("flags", facts.get("Features", "")).split()],
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def our_versions() -> dict[str, str]:
    """Return the versions in this environment."""
    found = {}
    for name in OURS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # what is not installed has no version to tell
            continue
    return found


def their_versions(python: Path) -> dict[str, str]:
    """Return the versions in the peers' environment; empty where there is none."""
    if not python.exists():
        return {}
    done = subprocess.run([str(python), "-c", _ASK, *THEIRS], stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def commit() -> str:
    """Return the commit that is checked out, marked where code differs from it; empty outside of git."""
    name = _git("rev-parse", "--short=10", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", f":(exclude){PAGE_NAME}")
    return f"{name}, changed" if changed else name


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _cpu_facts() -> dict[str, str]:
    """Return the first core's lines of /proc/cpuinfo, where there is one."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().split("\n\n")[0].splitlines() if path.exists() else []
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}
