"""Digests by which nodes tell whether they would run the same code with the same config."""

import hashlib
import json
from pathlib import Path

import launch

PACKAGES = ("data_prep", "gptdist", "launch")


def code_digest(root: Path | None = None) -> str:
    """Return a digest of the names and bytes of all modules of our packages.

    Args:
        root: folder that the packages lie in; default: that of the running code.
    """
    root = Path(launch.__file__).parents[1] if root is None else root
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root)}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()[:12]


def config_digest(path: Path) -> str:
    """Return a digest of a config file merged with those it builds on; of its error, where it cannot be read."""
    from gptdist.config.source import read_tree
    from gptdist.errors import ConfigError

    try:
        tree = read_tree(path)
    except ConfigError as error:
        return str(error)
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()[:12]
