"""Whether a run may begin with the weights of a checkpoint; no torch."""

from pathlib import Path

from gptdist.checkpoint.identity import RunIdentity
from gptdist.checkpoint.manifest import Manifest
from gptdist.checkpoint.same_model import STRETCHED_KEYS, model_differences
from gptdist.errors import CheckpointError


def check_begins(manifest: Manifest, identity: RunIdentity, where: Path) -> list[str]:
    """Return a line for each way in which the run computes something else with the same weights.

    Raises:
        CheckpointError: the weights are of another model or tokenizer; names the first difference.
    """
    now = identity.config["model"]
    lines = model_differences(manifest.config.get("model", {}), now, str(where))
    is_stretched = now["position_embedding"] == "rope"  # learned positions are weights, one for each
    for key, line in lines.items():
        if key.partition(".")[0] not in STRETCHED_KEYS or not (is_stretched or key == "local_attention_window"):
            raise CheckpointError(
                f"training.init_from: {where}: {line}; its weights would be another model, set the key as it was"
            )
    was, have = manifest.tokenizer_fingerprint, identity.tokenizer_fingerprint
    if was and was != have:
        raise CheckpointError(
            f"training.init_from: {where}: trained with tokenizer {was[:12]}, data.tokenizer is {have[:12]}; "
            f"prepare the data with the one it was trained with (if they are the same, import it with --tokenizer)"
        )
    return list(lines.values())
