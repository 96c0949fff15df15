"""Find checkpoints, and take the newest whole one; no torch."""

import re
from pathlib import Path

from gptdist.checkpoint.keys import TrustedKey
from gptdist.checkpoint.manifest import MANIFEST_NAME, Manifest, read_manifest
from gptdist.checkpoint.verify import verify
from gptdist.errors import CheckpointError

LATEST_NAME = "latest"
"""File beside the step folders that names the newest, for people."""

_STEP_FOLDER = re.compile(r"step_(\d{8,})")


def step_folder_name(step: int) -> str:
    """Return the name of the folder that holds the checkpoint of ``step``."""
    return f"step_{step:08d}"


def is_step_folder_name(name: str) -> bool:
    """Return whether a folder of this name holds a checkpoint."""
    return _STEP_FOLDER.fullmatch(name) is not None


def step_of(folder: Path) -> int:
    """Return the step whose checkpoint a step folder holds."""
    return int(folder.name.removeprefix("step_"))


def step_folders(checkpoints: Path) -> list[Path]:
    """Return all step folders, newest first; half-written ones have other names and are not among them."""
    if not checkpoints.is_dir():
        return []
    found = [(int(match[1]), path) for path in checkpoints.iterdir() if (match := _STEP_FOLDER.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def newest_whole(
    checkpoints: Path, before_step: int | None = None, trusted: TrustedKey | None = None
) -> tuple[Path | None, list[str]]:
    """Return the newest step folder that verifies, and a line for each damaged one that was passed over.

    Args:
        checkpoints: folder of them.
        before_step: look at those of earlier steps only.
        trusted: those that are not signed with its private key count as damaged.

    Raises:
        CheckpointError: there are checkpoints, and none is whole. To begin from step 0 there would lose a run.
    """
    passed_over: list[str] = []
    folders = [folder for folder in step_folders(checkpoints) if before_step is None or step_of(folder) < before_step]
    for folder in folders:
        problems = verify(folder, trusted)
        if not problems:
            return folder, passed_over
        passed_over += problems
    if folders:
        raise CheckpointError(
            f"{checkpoints}: none of {len(folders)} checkpoints is whole ({passed_over[0]}); restore one from a copy, "
            f"or set another run_dir to begin again"
        )
    return None, passed_over


def resolve_checkpoint(path: Path) -> Path:
    """Return the step folder that a user means by a run folder, its checkpoints folder, or a step folder.

    Raises:
        CheckpointError: there is no whole checkpoint there.
    """
    if (path / MANIFEST_NAME).is_file():
        problems = verify(path)
        if problems:
            raise CheckpointError(f"{problems[0]}; the checkpoint is damaged, use another one")
        return path
    for folder in (path / "checkpoints", path):
        newest, _ = newest_whole(folder)
        if newest is not None:
            return newest
    raise CheckpointError(_none_in(path))


def expect_checkpoint(path: Path) -> None:
    """Refuse where ``resolve_checkpoint`` would for want of any checkpoint, by names alone: before torch is loaded.

    Raises:
        CheckpointError: there is none.
    """
    if not ((path / MANIFEST_NAME).is_file() or step_folders(path / "checkpoints") or step_folders(path)):
        raise CheckpointError(_none_in(path))


def _none_in(path: Path) -> str:
    return f"{path}: holds no checkpoint; name a run folder or one of its checkpoints/step_… folders"


def named_checkpoint(path: Path) -> tuple[Path, Manifest]:
    """Return the step folder that a user means, and its manifest, which alone is read: files may be damaged.

    Raises:
        CheckpointError: there is no checkpoint there, or the manifest is damaged.
    """
    folder = next(iter(step_folders(path / "checkpoints") or step_folders(path)), path)
    if folder == path and not (path / MANIFEST_NAME).is_file():
        raise CheckpointError(f"{path}: holds no checkpoint; name a run folder or a checkpoints/step_… folder")
    return folder, read_manifest(folder)
