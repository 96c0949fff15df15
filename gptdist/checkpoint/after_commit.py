"""What becomes of a checkpoint once it has its name: it is uploaded, and older ones are deleted as the rules say."""

import logging
from pathlib import Path
from types import TracebackType
from typing import Self

from gptdist.checkpoint.background import Background
from gptdist.checkpoint.find import LATEST_NAME, step_folder_name, step_of
from gptdist.checkpoint.prune import Retention
from gptdist.checkpoint.remote_store import RemoteStore
from gptdist.checkpoint.seals import Protection
from gptdist.checkpoint.upload import Uploader
from gptdist.config.checkpoints import CheckpointsConfig
from gptdist.durable import write_whole
from gptdist.telemetry.ledger import Ledger

logger = logging.getLogger(__name__)

DELETED = "checkpoints_deleted"


class Keeper:
    """Looks after the checkpoints of a run; rank 0 has one.

    Its methods may be called from any thread, and none is a collective.
    """

    def __init__(self, checkpoints: Path, config: CheckpointsConfig, run: str, ledger: Ledger) -> None:
        """Do nothing yet.

        Args:
            checkpoints: folder to look after.
            config: its rules and its store.
            run: name of the run, and of its folder in the store.
            ledger: where things are told.
        """
        self._checkpoints = checkpoints
        self._ledger = ledger
        self._spared: Path | None = None
        self._retention = Retention(checkpoints, config.keep, Protection.of(config.protection).trusted_key)
        self._pruning = Background("retention of checkpoints", self._prune)
        remote = config.remote
        self._uploader = None if remote is None else Uploader(RemoteStore(remote.url, run), remote, ledger)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish what was begun; where an error ends the run, the last upload is left to the next start."""
        self.settle()
        if error is not None:
            return
        self.finish_upload()
        if self._spared is not None:  # by its upload, most likely
            self._pruning.give(self._spared)
            self.settle()

    def after_commit(self, folder: Path) -> None:
        """Look after what ``folder``, whole and under its name on the disk, makes needless; returns at once."""
        self._retention.trust(folder)
        if self._uploader is not None:
            self._uploader.give(folder)
        self._pruning.give(folder)

    def after_resume(self, step: int) -> None:
        """Look after the checkpoint of ``step``, which has just been verified and loaded; returns at once.

        An attempt that was killed right after its last save has left this undone, and may have left ``latest`` behind.
        """
        folder, latest = self._checkpoints / step_folder_name(step), self._checkpoints / LATEST_NAME
        try:
            if not latest.exists() or latest.read_text(errors="replace") != folder.name:
                write_whole(latest, folder.name.encode())
        except OSError as error:
            logger.warning("%s: cannot be written (%s); the next checkpoint tries again", latest, error)
        self.after_commit(folder)

    def after_rewind(self, step: int) -> None:
        """Give up the copies of steps after ``step``; returns at once."""
        if self._uploader is not None:
            self._uploader.leave_behind(step)

    def settle(self) -> None:
        """Wait until nothing is being deleted."""
        self._pruning.settle()

    def finish_upload(self) -> None:
        """Wait for the last upload as long as the config says."""
        if self._uploader is not None:
            self._uploader.finish()

    def _prune(self, newest: Path) -> None:
        try:
            pruned = self._retention.apply()
        except OSError as error:
            logger.warning("%s: older checkpoints cannot be deleted (%s); look at the folder", newest.parent, error)
            self._ledger.write(DELETED, steps=[], problem=str(error))
            return
        self._spared = newest if pruned.in_use else None
        for folder in pruned.in_use:
            logger.info("%s stays for now, it is being read", folder)
        if pruned.deleted:
            steps = [step_of(folder) for folder in pruned.deleted]
            self._ledger.write(DELETED, steps=steps, bytes=pruned.num_bytes)
            logger.info(
                "checkpoints: deleted step %s (%.3g GB) as checkpoints.keep says",
                ", ".join(map(str, steps)),
                pruned.num_bytes / 1e9,
            )
