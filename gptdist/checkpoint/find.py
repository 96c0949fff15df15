"""Find checkpoints, tell whole ones from damaged ones, and take the newest whole one."""

import re
from pathlib import Path

from gptdist.checkpoint.manifest import MANIFEST_NAME, Manifest, read_manifest
from gptdist.checkpoint.tensor_file import file_problem
from gptdist.errors import CheckpointError

_STEP_FOLDER = re.compile(r"step_(\d{8,})")


def step_folder_name(step: int) -> str:
    """Return the name of the folder that holds the checkpoint of ``step``."""
    return f"step_{step:08d}"


def step_folders(checkpoints: Path) -> list[Path]:
    """Return all step folders, newest first; half-written ones have other names and are not among them."""
    if not checkpoints.is_dir():
        return []
    found = [(int(match[1]), path) for path in checkpoints.iterdir() if (match := _STEP_FOLDER.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def verify(folder: Path) -> list[str]:
    """Return everything that is wrong with a step folder: each file's presence, size and hash. Reads all of it."""
    try:
        manifest = read_manifest(folder)
    except CheckpointError as error:
        return [str(error)]
    problems = [file_problem(folder, entry, with_hash=True) for entry in manifest.files]
    return [problem for problem in problems if problem is not None] + missing_values(folder, manifest)


def missing_values(folder: Path, manifest: Manifest) -> list[str]:
    """Return each tensor of which the fragments do not add up to all values."""
    held = dict.fromkeys((entry.name for entry in manifest.tensors), 0)
    for fragment in manifest.fragments:
        held[fragment.tensor] = held.get(fragment.tensor, 0) + fragment.numel
    sizes = {entry.name: entry.outer * entry.length * entry.inner for entry in manifest.tensors}
    return [
        f"{folder}: '{name}' has {count} of {sizes.get(name, 0)} values"
        for name, count in held.items()
        if count != sizes.get(name, 0)
    ]


def newest_whole(checkpoints: Path) -> tuple[Path | None, list[str]]:
    """Return the newest step folder that verifies, and a line for each damaged one that was passed over.

    Raises:
        CheckpointError: there are checkpoints, and none is whole. To begin from step 0 there would lose a run.
    """
    passed_over: list[str] = []
    folders = step_folders(checkpoints)
    for folder in folders:
        problems = verify(folder)
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
    raise CheckpointError(f"{path}: holds no checkpoint; name a run folder or one of its checkpoints/step_… folders")
