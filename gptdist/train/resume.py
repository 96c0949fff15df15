"""Whether a checkpoint may be continued under a config, and what has changed between the two."""

from typing import Any

from gptdist.checkpoint.manifest import Manifest
from gptdist.checkpoint.save import RunIdentity
from gptdist.errors import CheckpointError

FREE_MODEL_KEYS = ("attention_dropout", "hidden_dropout", "init_std")
"""Keys of the model section that may change within a run."""


def check_continues(manifest: Manifest, identity: RunIdentity, where: str) -> None:
    """Refuse to continue on another model, tokenizer or data.

    Raises:
        CheckpointError: names the first difference.
    """
    for change in changes(manifest.config.get("model", {}), identity.config["model"], "model."):
        if not change.startswith(tuple(f"model.{key}:" for key in FREE_MODEL_KEYS)):
            raise CheckpointError(f"{where}: {change}; a run keeps its model, set another run_dir for a new one")
    if manifest.tokenizer_fingerprint != identity.tokenizer_fingerprint:
        raise CheckpointError(
            f"{where}: trained with tokenizer {manifest.tokenizer_fingerprint[:12]}, data.tokenizer is "
            f"{identity.tokenizer_fingerprint[:12]}; name the one it was trained with, or set another run_dir"
        )
    for name, fingerprint in identity.data_fingerprints.items():
        before = manifest.data_fingerprints.get(name, fingerprint)
        if before != fingerprint:
            raise CheckpointError(
                f"{where}: content of data source '{name}' was {before[:12]} and is now {fingerprint[:12]}, so the "
                f"same positions would be other samples; restore the data, or set another run_dir"
            )


def changes(was: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """Return ``key: was → now`` for every key whose value differs."""
    lines = []
    for key in sorted(was.keys() | now.keys()):
        old, new = was.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += changes(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: {old} → {new}")
    return lines
