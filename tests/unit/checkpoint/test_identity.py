"""Whether a run may continue a checkpoint."""

import pytest

from gptdist.checkpoint.identity import RunIdentity, check_continues
from gptdist.errors import CheckpointError
from tests.unit.compress.small_models import trained


def test_a_checkpoint_of_before_a_switch_was_there_goes_on() -> None:
    manifest = trained().manifest
    identity = RunIdentity(manifest.config, manifest.tokenizer_fingerprint, {})
    known = {key: value for key, value in manifest.config["model"].items() if key != "rotary_fraction"}
    older = manifest.model_copy(update={"config": manifest.config | {"model": known}})
    check_continues(older, identity, "here")
    other = RunIdentity(
        manifest.config | {"model": manifest.config["model"] | {"rotary_fraction": 0.5}},
        manifest.tokenizer_fingerprint,
        {},
    )
    with pytest.raises(CheckpointError, match=r"model.rotary_fraction: 1.0 → 0.5; a run keeps its model"):
        check_continues(older, other, "here")
