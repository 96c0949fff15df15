"""A digest by which nodes tell whether they would run the same config."""

import hashlib
import json
from pathlib import Path


def config_digest(path: Path) -> str:
    """Return a digest of a config file merged with those it builds on; of its error, where it cannot be read."""
    from gptdist.config.source import read_tree
    from gptdist.errors import ConfigError

    try:
        tree = read_tree(path)
    except ConfigError as error:
        return str(error)
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()[:12]
