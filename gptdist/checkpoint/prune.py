"""Delete the checkpoints of a run that no rule keeps, in an order that a kill cannot harm; no torch."""

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from gptdist.checkpoint.find import step_folders, step_of
from gptdist.checkpoint.hold import unheld
from gptdist.checkpoint.keys import TrustedKey
from gptdist.checkpoint.manifest import MANIFEST_NAME, Manifest, read_manifest
from gptdist.checkpoint.retention import Candidate, Stay, staying
from gptdist.checkpoint.verify import missing_values, verify
from gptdist.config.retention import KeepConfig
from gptdist.durable import replace
from gptdist.errors import CheckpointError

logger = logging.getLogger(__name__)

DELETED_PREFIX = ".deleted-"
"""Begins the name of a folder that is being deleted; nothing takes it for a checkpoint."""


@dataclass(frozen=True)
class Sorted:
    """What the rules say about the checkpoints of a folder."""

    stays: list[tuple[Path, Stay]]
    goes: list[Path]


@dataclass(frozen=True)
class Pruned:
    """What was done."""

    deleted: list[Path]
    num_bytes: int
    in_use: list[Path]
    """What would have gone, and is being read."""


class Retention:
    """The rules for one folder of checkpoints, and what is known of those in it."""

    def __init__(self, checkpoints: Path, rules: KeepConfig, trusted: TrustedKey | None = None) -> None:
        """Know nothing yet."""
        self._checkpoints = checkpoints
        self._rules = rules
        self._trusted = trusted
        self._is_whole: dict[str, bool] = {}

    def trust(self, folder: Path) -> None:
        """Take ``folder`` for whole as long as its sizes are right: this process has just hashed what it wrote."""
        self._is_whole[folder.name] = True

    def sort(self) -> Sorted:
        """Return what stays and what goes.

        Sizes are looked at always. Files are read only where something would go because of a checkpoint that stays as
        one of the whole ones, and is not known to be: then once by this object.
        """
        while True:
            folders = step_folders(self._checkpoints)
            found = {step_of(folder): (folder, self._candidate(folder)) for folder in folders}
            stays = staying(self._rules, [one for _, one in found.values()], now=time.time())
            goes = [folder for step, (folder, _) in found.items() if step not in stays]
            relied_on = [found[step][0] for step, stay in stays.items() if stay.if_whole]
            unknown = [folder for folder in relied_on if folder.name not in self._is_whole]
            if not goes or not unknown:
                return Sorted([(found[step][0], stay) for step, stay in stays.items()], goes)
            for folder in unknown:
                self._is_whole.setdefault(
                    folder.name, not verify(folder, self._trusted)
                )  # it may have been saved anew meanwhile

    def apply(self) -> Pruned:
        """Delete what goes, the oldest first, and what killed deletions have left.

        Raises:
            OSError: a folder cannot be deleted.
        """
        sweep(self._checkpoints)
        deleted, in_use, num_bytes = [], [], 0
        for folder in reversed(self.sort().goes):
            size = sum(path.stat().st_size for path in folder.iterdir())
            if delete_checkpoint(folder):
                deleted.append(folder)
                num_bytes += size
            else:
                in_use.append(folder)
        return Pruned(deleted, num_bytes, in_use)

    def _candidate(self, folder: Path) -> Candidate:
        try:
            manifest = read_manifest(folder)
        except CheckpointError as error:
            logger.debug("%s", error)
            return Candidate(step_of(folder), is_whole=False)
        if manifest.step != step_of(folder):
            return Candidate(step_of(folder), is_whole=False)
        is_whole = self._is_whole.get(folder.name, True) and sizes_are_right(folder, manifest)
        return candidate_of(manifest, is_whole=is_whole, saved_at=(folder / MANIFEST_NAME).stat().st_mtime)


def candidate_of(manifest: Manifest, *, is_whole: bool, saved_at: float) -> Candidate:
    """Return what the rules ask about a checkpoint."""
    progress = manifest.progress
    return Candidate(
        step=progress.step,
        is_whole=is_whole,
        saved_at=saved_at,
        loss=progress.validation_loss if progress.validation_step == progress.step else None,
        windows=None if progress.lowest is None else progress.lowest.windows,
        first_skipped=min(progress.guards.skipped_steps, default=None),
    )


def sizes_are_right(folder: Path, manifest: Manifest) -> bool:
    """Return whether every file has the size that the manifest says, and the fragments add up; reads none."""
    try:
        sizes = [(folder / entry.name).stat().st_size for entry in manifest.files]
    except FileNotFoundError:
        return False
    return sizes == [entry.num_bytes for entry in manifest.files] and not missing_values(folder, manifest)


def delete_checkpoint(folder: Path, *, even_if_read: bool = False) -> bool:
    """Delete a step folder and return whether it was done: it is not where somebody reads it.

    It loses its name first, for good: a kill leaves a whole checkpoint, or what no reader takes for one.
    """
    doomed = folder.with_name(DELETED_PREFIX + folder.name)
    with unheld(folder) as is_free:
        if not is_free and not even_if_read:
            return False
        if doomed.exists():
            shutil.rmtree(doomed)  # left by a kill
        replace(folder, doomed)
    shutil.rmtree(doomed)
    return True


def sweep(checkpoints: Path) -> None:
    """Remove what killed deletions have left."""
    for left_over in checkpoints.glob(f"{DELETED_PREFIX}*"):
        shutil.rmtree(left_over)
