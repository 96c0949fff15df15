"""Upload checkpoints in the background, one at a time, the newest of what waits; no torch."""

import logging
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from gptdist.checkpoint.background import Background
from gptdist.checkpoint.find import step_of
from gptdist.checkpoint.hold import hold
from gptdist.checkpoint.manifest import MANIFEST_NAME
from gptdist.checkpoint.remote_copy import is_there, send, send_ledger
from gptdist.checkpoint.remote_prune import RemoteRetention
from gptdist.checkpoint.remote_store import RemoteStore
from gptdist.config.remote import RemoteConfig
from gptdist.errors import CheckpointError
from gptdist.telemetry.ledger import Ledger

logger = logging.getLogger(__name__)

UPLOADED = "checkpoint_uploaded"
UPLOAD_FAILED = "upload_failed"
UPLOAD_REPLACED = "upload_replaced"
UPLOAD_UNFINISHED = "upload_unfinished"
DELETED_THERE = "remote_checkpoints_deleted"


@dataclass
class _Upload:
    """One checkpoint on its way; it cannot be deleted here until this is closed."""

    folder: Path
    held: IO[bytes] | None
    rewinds: int
    """Of this attempt of the run when the checkpoint was saved."""

    sent: set[str] = field(default_factory=set)

    @property
    def step(self) -> int:
        return step_of(self.folder)

    def close(self) -> None:
        if self.held is not None:
            self.held.close()


class Uploader:
    """Copies checkpoints of one run into its store; rank 0 has one. Its methods may be called from any thread."""

    def __init__(self, store: RemoteStore, config: RemoteConfig, ledger: Ledger) -> None:
        """Ask nothing of the store yet."""
        self._store = store
        self._config = config
        self._ledger = ledger
        self._retention = RemoteRetention(store, config.keep)
        self._background = Background("upload of checkpoints", self._work)
        self._lock = threading.Lock()
        self._current: _Upload | None = None
        self._left_behind_above: int | None = None
        self._rewinds = 0

    def give(self, folder: Path) -> None:
        """Have ``folder``, whole, uploaded when the upload before it is done; one that waits gives way to it."""
        replaced = self._background.give(_Upload(folder, hold(folder), self._rewinds))
        if replaced is not None:
            replaced.close()
            self._ledger.write(UPLOAD_REPLACED, step=replaced.step, by_step=step_of(folder))
            logger.info(
                "step %d is not uploaded: the one before it is still on its way, and step %d is newer",
                replaced.step,
                step_of(folder),
            )

    def leave_behind(self, step: int) -> None:
        """Give up what is on its way; what is there of later steps than ``step`` goes before the next upload."""
        with self._lock:
            self._left_behind_above = step
            self._rewinds += 1
        waiting = self._background.take_back()
        if waiting is not None:
            waiting.close()

    def finish(self) -> None:
        """Wait for the last upload as long as the config says, and tell of one that is not done by then."""
        seconds = self._config.upload_timeout_seconds
        if not self._background.settle(0.0):
            logger.info("waiting up to %g s for the upload of checkpoints", seconds)
        if not self._background.settle(seconds):
            current = self._current
            step = None if current is None else current.step
            self._ledger.write(UPLOAD_UNFINISHED, step=step)
            logger.warning(
                "the upload of step %s did not end within %g s (checkpoints.remote.upload_timeout_seconds); the same "
                "command goes on with it",
                step,
                seconds,
            )

    def _work(self, upload: _Upload) -> None:
        self._current = upload
        try:
            if self._has_arrived(upload):
                self._send_ledger()
                self._prune(upload.folder)
        finally:
            self._current = None
            upload.close()

    def _has_arrived(self, upload: _Upload) -> bool:
        """Upload with as many attempts as the config says; a failure is told, never raised: training goes on.

        What is there already may be of an attempt that was killed before it could write ``latest`` or the ledger.
        """
        begin, wait_seconds = time.monotonic(), self._config.retry_seconds
        for attempt in range(1, self._config.upload_attempts + 1):
            try:
                self._remove_left_behind()
                if is_there(self._store, upload.folder):
                    if self._is_wanted(upload) and self._store.latest() != upload.folder.name:
                        self._store.point_latest(upload.folder.name)
                    return self._is_wanted(upload)
                num_bytes = send(self._store, upload.folder, upload.sent, lambda: self._is_wanted(upload))
                break
            except (CheckpointError, OSError) as error:
                if not self._is_wanted(upload):
                    return False
                if attempt == self._config.upload_attempts:
                    self._ledger.write(UPLOAD_FAILED, step=upload.step, attempts=attempt, problem=str(error))
                    logger.warning(
                        "step %d is not uploaded after %d attempts: %s; training goes on, the next checkpoint is tried "
                        "anew",
                        upload.step,
                        attempt,
                        error,
                    )
                    return False
                logger.info("upload of step %d is tried again in %g s: %s", upload.step, wait_seconds, error)
            time.sleep(wait_seconds)
            wait_seconds *= 2
        if not self._is_wanted(upload):
            return False
        seconds = time.monotonic() - begin
        self._ledger.write(UPLOADED, step=upload.step, bytes=num_bytes, seconds=seconds, attempts=attempt)
        logger.info("step %d | uploaded to %s in %.2f s", upload.step, self._store.url, seconds)
        return True

    def _send_ledger(self) -> None:
        try:
            send_ledger(self._store, self._ledger.path)
        except (CheckpointError, OSError) as error:
            logger.warning("the ledger is not uploaded: %s; it goes with the next checkpoint", error)

    def _is_wanted(self, upload: _Upload) -> bool:
        with self._lock:
            return upload.rewinds == self._rewinds

    def _remove_left_behind(self) -> None:
        """Remove what a rewind has left behind in the store; a failure is tried again with the upload."""
        with self._lock:
            above = self._left_behind_above
        if above is None:
            return
        for name in self._store.step_names():
            if step_of(Path(name)) > above:
                self._store.remove_file(name, MANIFEST_NAME)
                self._store.remove(name)
        with self._lock:
            if self._left_behind_above == above:
                self._left_behind_above = None

    def _prune(self, newest: Path) -> None:
        try:
            deleted = self._retention.apply(newest)
        except CheckpointError as error:
            self._ledger.write(DELETED_THERE, steps=[], problem=str(error))
            logger.warning("older checkpoints in the store cannot be deleted: %s", error)
            return
        if deleted:
            self._ledger.write(DELETED_THERE, steps=deleted)
            logger.info(
                "checkpoints: deleted step %s of %s as checkpoints.remote.keep says",
                ", ".join(map(str, deleted)),
                self._store.url,
            )
