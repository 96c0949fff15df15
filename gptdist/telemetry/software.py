"""Which code and which libraries a process runs, for records and to compare nodes; nothing of them is imported."""

import hashlib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import gptdist

PACKAGES = ("data_prep", "gptdist", "launch")
LIBRARIES = ("torch", "deepspeed", "megatron-core", "numpy")


def code_digest(root: Path | None = None) -> str:
    """Return a digest of the names and bytes of all modules of our packages.

    Args:
        root: folder that the packages lie in; default: that of the running code.
    """
    root = Path(gptdist.__file__).parents[1] if root is None else root
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root)}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()[:12]


def versions(libraries: Iterable[str] = LIBRARIES) -> dict[str, str | None]:
    """Return the installed version of each library; none where it is not installed."""
    found: dict[str, str | None] = {}
    for library in libraries:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            found[library] = None
    return found
