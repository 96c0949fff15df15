"""The environment of what gptdist is measured beside: ``python -m benchmarks.peer_environment`` makes it.

It is apart from gptdist's own, whose versions it would move. What is there already is left as it is.
"""

import json
import subprocess
import sys
import venv
from collections.abc import Collection
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "work" / "peers"
PYTHON = FOLDER / "bin" / "python"
REQUIREMENTS = Path(__file__).parent / "peers" / "requirements.txt"
WITHOUT_DEPENDENCIES = REQUIREMENTS.with_name("requirements-no-deps.txt")
HOW = "make peers"

_ASK = """
import json, sys
from importlib.metadata import distributions
print(json.dumps(sorted({one.metadata["Name"].lower().replace("_", "-") for one in distributions()})))
"""


@cache
def _distributions(python: str) -> frozenset[str]:
    done = subprocess.run([python, "-c", _ASK], stdout=subprocess.PIPE, text=True, check=True)
    return frozenset(json.loads(done.stdout))


def why_missing(python: str | Path | None, *names: str) -> str:
    """Return why distributions cannot be measured with an interpreter; empty where all are there."""
    if python is None or not Path(python).exists():
        return f"no interpreter with {' and '.join(names)} was named or made ({HOW})"
    absent = [name for name in names if name not in _distributions(str(python))]
    return f"{' and '.join(absent)} not installed beside {Path(python).name} ({HOW})" if absent else ""


def missing_text(python: Path, names: Collection[str]) -> str:
    """Return what is to be said of missing peers before a run, empty where none is."""
    absent = [name for name in sorted(names) if why_missing(python, name)]
    return f"; without {', '.join(absent)}, which `{HOW}` installs into {FOLDER}" if absent else ""


def main() -> None:
    """Make the environment."""
    if not PYTHON.exists():
        venv.create(FOLDER, with_pip=True)
    install = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    torch = next(line for line in REQUIREMENTS.read_text().splitlines() if line.startswith("torch=="))
    for words in ([torch], ["-r", str(REQUIREMENTS)], ["--no-deps", "-r", str(WITHOUT_DEPENDENCIES)]):
        done = subprocess.run([*install, *words], check=False)
        if done.returncode:
            raise SystemExit(f"pip install {' '.join(words)}: status {done.returncode}; its error is above")
    print(f"{PYTHON} has what gptdist is measured beside")


if __name__ == "__main__":
    sys.exit(main())
