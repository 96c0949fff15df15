"""Delete the copies of checkpoints in a store that no rule keeps; no torch."""

import tempfile
import time
from pathlib import Path

from gptdist.checkpoint.find import step_of
from gptdist.checkpoint.manifest import MANIFEST_NAME
from gptdist.checkpoint.prune import candidate_of
from gptdist.checkpoint.remote_copy import fetch_manifest
from gptdist.checkpoint.remote_store import RemoteStore
from gptdist.checkpoint.retention import Candidate, staying
from gptdist.config.retention import KeepConfig
from gptdist.errors import CheckpointError, StoreError


class RemoteRetention:
    """The rules for one run's folder in a store, and what is known of the copies in it."""

    def __init__(self, store: RemoteStore, rules: KeepConfig) -> None:
        """Know nothing yet."""
        self._store = store
        self._rules = rules
        self._known: dict[str, Candidate] = {}

    def apply(self, newest: Path) -> list[int]:
        """Delete what no rule keeps, and what killed uploads and deletions have left; return the steps.

        A copy is whole if its manifest can be read and its files have their sizes; that is asked once by this object.

        Args:
            newest: the step folder here whose copy has just been made.

        Raises:
            StoreError: the store does not answer, or refuses.
        """
        if self._rules.keeps_everything:
            return []
        self._known.pop(newest.name, None)  # it may have been saved anew
        names = self._store.step_names()
        for name in names:
            if name not in self._known:
                self._known[name] = self._candidate(name)
        stays = staying(self._rules, [self._known[name] for name in names], now=time.time())
        deleted = []
        for name in reversed(names):
            if step_of(Path(name)) not in stays:
                self._store.remove_file(name, MANIFEST_NAME)  # from here on no reader takes it
                self._store.remove(name)
                del self._known[name]
                deleted.append(step_of(Path(name)))
        return deleted

    def _candidate(self, name: str) -> Candidate:
        try:
            with tempfile.TemporaryDirectory() as folder:
                manifest = fetch_manifest(self._store, name, Path(folder))
            sizes = self._store.file_sizes(name)
            is_whole = all(sizes.get(entry.name) == entry.num_bytes for entry in manifest.files)
            return candidate_of(manifest, is_whole=is_whole, saved_at=self._store.saved_at(name, MANIFEST_NAME))
        except StoreError:
            raise
        except CheckpointError:
            return Candidate(step_of(Path(name)), is_whole=False)
