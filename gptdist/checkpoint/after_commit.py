"""What becomes of a checkpoint once it has its name: older ones are deleted as the rules say."""

import logging
from pathlib import Path
from types import TracebackType
from typing import Self

from gptdist.checkpoint.background import Background
from gptdist.checkpoint.find import step_of
from gptdist.checkpoint.prune import Retention
from gptdist.config.checkpoints import CheckpointsConfig
from gptdist.telemetry.ledger import Ledger

logger = logging.getLogger(__name__)

DELETED = "checkpoints_deleted"


class Keeper:
    """Looks after the checkpoints of a run; rank 0 has one.

    Its methods may be called from any thread, and none is a collective.
    """

    def __init__(self, checkpoints: Path, config: CheckpointsConfig, ledger: Ledger) -> None:
        """Look after the folder ``checkpoints``; nothing is done before the first commit."""
        self._ledger = ledger
        self._retention = Retention(checkpoints, config.keep)
        self._pruning = Background("retention of checkpoints", self._prune)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish what was begun."""
        self.settle()

    def after_commit(self, folder: Path) -> None:
        """Look after what ``folder``, whole and under its name on the disk, makes needless; returns at once."""
        self._retention.trust(folder)
        self._pruning.give(folder)

    def settle(self) -> None:
        """Wait until nothing is being deleted."""
        self._pruning.settle()

    def _prune(self, newest: Path) -> None:
        try:
            pruned = self._retention.apply()
        except OSError as error:
            logger.warning("%s: older checkpoints cannot be deleted (%s); look at the folder", newest.parent, error)
            self._ledger.write(DELETED, steps=[], problem=str(error))
            return
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
