"""Where a model that is handed on comes from: its run's config, its parent, and the software; no torch, no secrets."""

import re
from collections.abc import Mapping
from io import StringIO
from typing import Any

from ruamel.yaml import YAML

from gptdist.checkpoint.manifest import Manifest
from gptdist.telemetry.software import LIBRARIES, code_digest, versions

RUN_CONFIG_FILE, PROVENANCE_FILE = "run_config.yaml", "provenance.json"
_USER_AND_QUERY = re.compile(r"(?P<scheme>[a-zA-Z][\w+.-]*://)(?:[^/@\s]*@)?(?P<rest>[^\s?#]*)(?:[?#]\S*)?")


def run_config_text(config: Mapping[str, Any]) -> str:
    """Return the resolved config as YAML, without what says where keys are and how a store is reached."""
    tree = without_secrets(config)
    text = StringIO()
    yaml = YAML(pure=True)
    yaml.width = 120
    yaml.dump(tree, text)
    return text.getvalue()


def without_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config without where keys and stores are; user names, passwords and queries leave all URLs."""
    tree = {key: _plain(value) for key, value in config.items()}
    checkpoints = tree.get("checkpoints")
    if isinstance(checkpoints, dict):
        for key in ("protection", "remote"):
            checkpoints.pop(key, None)
    return tree


def provenance_tree(
    manifest: Manifest,
    *,
    checkpoint: str,
    manifest_sha256: str | None,
    parts: Mapping[str, Any],
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """Return the content of ``provenance.json``.

    Args:
        manifest: of the checkpoint.
        checkpoint: name of its folder.
        manifest_sha256: hash of its manifest, where it lies on a disk.
        parts: facts of each part of the folder, by name.
        left_out: why a part is not there, by name.
    """
    beginning = manifest.progress.initial_weights
    return {
        "format": "gptdist-provenance",
        "format_version": 1,
        "run": manifest.config.get("name"),
        "checkpoint": {"name": checkpoint, "step": manifest.step, "manifest_sha256": manifest_sha256},
        "parent": {
            "origin": None if manifest.origin is None else _plain(manifest.origin.tree()),
            "initial_weights": None if beginning is None else _plain(beginning.tree()),
        },
        "tokenizer_fingerprint": manifest.tokenizer_fingerprint,
        "data_fingerprints": dict(manifest.data_fingerprints),
        "code_digest": code_digest(),
        "versions": versions((*LIBRARIES, "transformers", "tokenizers", "safetensors")),
        "parts": dict(parts),
        "left_out": dict(left_out),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, str):
        return _USER_AND_QUERY.sub(lambda found: found["scheme"] + found["rest"], value)
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)
