"""What a checkpoint says about the run it belongs to, and whether a run may continue it; no torch."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from gptdist.checkpoint.find import step_folders
from gptdist.checkpoint.manifest import Manifest, read_manifest
from gptdist.checkpoint.teacher import teacher_fingerprint
from gptdist.config.model import ModelConfig
from gptdist.config.run import RunConfig
from gptdist.data.sources import TrainingData
from gptdist.errors import CheckpointError
from gptdist.telemetry.ledger import LEDGER_NAME, SAVED, read_json_lines
from gptdist.tokenizer.tokenizer import Tokenizer

FREE_MODEL_KEYS = ("attention_dropout", "hidden_dropout", "init_std")
"""Keys of the model section that may change within a run."""

TEACHER_PATHS = ("teacher", "cache", "teacher_tokenizer")
"""Keys of the distillation section that say where something is; what is there is compared by its content."""


@dataclass(frozen=True)
class RunIdentity:
    """The config of a run, and what its positions refer to."""

    config: dict[str, Any]
    tokenizer_fingerprint: str
    data_fingerprints: dict[str, str]
    teacher_fingerprint: str = ""

    @classmethod
    def of(cls, config: RunConfig, tokenizer: Tokenizer, data: TrainingData) -> Self:
        """Return the identity of a run on these."""
        teacher = teacher_fingerprint(config.distillation)
        return cls(config.tree(), tokenizer.fingerprint, data.fingerprints(), teacher)

    @property
    def zero_stage(self) -> int:
        """ZeRO stage of the run."""
        return int(self.config["parallel"]["zero_stage"])


def check_continues(manifest: Manifest, identity: RunIdentity, where: str) -> None:
    """Refuse to continue on another model, tokenizer or data, or with another teacher.

    Raises:
        CheckpointError: names the first difference, or says that there are weights alone.
    """
    if manifest.origin is not None:
        raise CheckpointError(
            f"{where}: holds weights alone ({manifest.origin.kind}), no moments to go on with; "
            f"begin a run with it: training.init_from, in another run_dir"
        )
    free = tuple(f"model.{key}:" for key in FREE_MODEL_KEYS)
    known = {name: field.default for name, field in ModelConfig.model_fields.items() if not field.is_required()}
    # a checkpoint of before a switch was there has what it does by default
    was = known | manifest.config.get("model", {})
    model_changes = changes(was, identity.config["model"], "model.")
    refused = [change for change in model_changes if not change.startswith(free)]
    if refused:
        raise CheckpointError(
            f"{where}: {', '.join(refused)}; a run keeps its model, set another run_dir for a new one"
        )
    adapters = changes({"lora": manifest.config.get("lora")}, {"lora": identity.config.get("lora")})
    if adapters:
        raise CheckpointError(
            f"{where}: {', '.join(adapters)}; a run keeps its adapters, set another run_dir for new ones"
        )
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
    _check_teacher(manifest, identity, where)


def _check_teacher(manifest: Manifest, identity: RunIdentity, where: str) -> None:
    """Refuse to learn from another teacher, or in another way; the teacher may have moved."""
    was, now = (_without_paths(config.get("distillation")) for config in (manifest.config, identity.config))
    lines = changes({"distillation": was}, {"distillation": now})
    if lines:
        raise CheckpointError(
            f"{where}: {', '.join(lines)}; a run keeps what it learns from, set another run_dir for a new one"
        )
    before, have = manifest.teacher_fingerprint, identity.teacher_fingerprint
    if before != have:
        raise CheckpointError(
            f"{where}: learnt from the teacher {before[:12]}, distillation names {have[:12]}; name its step folder, or "
            f"set another run_dir"
        )


def _without_paths(section: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if section is None else {key: value for key, value in section.items() if key not in TEACHER_PATHS}


def check_folder_continues(checkpoints: Path, identity: RunIdentity) -> Manifest | None:
    """Check against the newest checkpoint whose manifest can be read, and return that manifest.

    Files and hashes are the ranks' business.

    Raises:
        CheckpointError: names the first difference.
    """
    for folder in step_folders(checkpoints):
        with contextlib.suppress(CheckpointError):
            manifest = read_manifest(folder)
            break
    else:
        return None
    check_continues(manifest, identity, str(folder))
    return manifest


def check_none_lost(run_folder: Path, checkpoints: Path) -> None:
    """Refuse to begin again where ``checkpoints`` is empty and the run's ledger notes one.

    Raises:
        CheckpointError: it does; the folder may be a mount that is missing.
    """
    ledger = run_folder / LEDGER_NAME
    steps = [event.get("step") for event in read_json_lines(ledger) if event.get("event") == SAVED]
    if steps:
        raise CheckpointError(
            f"{checkpoints}: holds no checkpoint, and {ledger} notes one of step {steps[-1]}; mount or restore the "
            f"folder, or set another run_dir to begin again"
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
