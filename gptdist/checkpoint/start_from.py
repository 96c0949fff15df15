"""Which checkpoint a run begins with: the newest whole one here, or a newer one from the remote store."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from gptdist.checkpoint.find import newest_whole, step_of
from gptdist.checkpoint.keys import TrustedKey
from gptdist.checkpoint.manifest import Manifest, read_manifest
from gptdist.checkpoint.remote_copy import fetch, fetch_ledger, fetch_manifest
from gptdist.checkpoint.remote_store import RemoteStore
from gptdist.errors import CheckpointError, StoreError

logger = logging.getLogger(__name__)


class Check(Protocol):
    """Raises where the run cannot continue a manifest."""

    def __call__(self, manifest: Manifest, *, where: str) -> None:
        """Check a manifest that is found at ``where``."""
        ...


def newest_anywhere(
    checkpoints: Path, store: RemoteStore | None, check: Check, trusted: TrustedKey | None = None
) -> tuple[Path | None, list[str]]:
    """Return the checkpoint to go on from, and a line for each that was passed over; none: the run is a new one.

    One in the store is fetched if it is further than the newest whole one here. Where the store does not answer, the
    run goes on from the one here with a warning.

    Args:
        checkpoints: folder of those here.
        store: of the run, if there is one.
        check: done before a fetch.
        trusted: what is not signed with its private key counts as damaged.

    Raises:
        StoreError: the store does not answer, and there is no checkpoint here.
        CheckpointError: there are checkpoints, here or there, and none is whole; or which is newer is not clear.
    """
    if store is None:
        return newest_whole(checkpoints, trusted=trusted)
    here: Path | None = None
    passed_over: list[str] = []
    damage: CheckpointError | None = None
    try:
        here, passed_over = newest_whole(checkpoints, trusted=trusted)
    except CheckpointError as error:
        damage, passed_over = error, [str(error)]
    try:
        fetched, others = _fetch_newer(checkpoints, store, here, check, trusted)
    except StoreError as error:
        if here is None:
            raise
        logger.warning("%s; the run goes on from %s, although a newer one may be there", error, here)
        return here, passed_over
    if fetched is None and damage is not None:
        raise damage
    return fetched or here, passed_over + others


def _fetch_newer(
    checkpoints: Path, store: RemoteStore, here: Path | None, check: Check, trusted: TrustedKey | None
) -> tuple[Path | None, list[str]]:
    passed_over: list[str] = []
    known = None if here is None else read_manifest(here)
    for name, manifest in _further(store, known, passed_over):
        if known is not None and manifest.step <= known.step:
            raise CheckpointError(
                f"{store.url}/{name} is of step {manifest.step} and {manifest.progress.consumed_samples} samples, "
                f"{here} of step {known.step} and {known.progress.consumed_samples}: one of them is from before a "
                f"rewind, or of another run; move the wrong one away"
            )
        check(manifest, where=f"{store.url}/{name}")
        logger.info("fetching %s/%s", store.url, name)
        fetch_ledger(store, checkpoints.parent)  # first: a start that is killed in between does not ask for it again
        try:
            return fetch(store, name, checkpoints, trusted), passed_over
        except StoreError:
            raise
        except CheckpointError as error:
            passed_over.append(str(error))
    if known is None and passed_over:
        raise CheckpointError(
            f"{store.url}: no checkpoint there is whole ({passed_over[0]}); restore one from a copy, or set "
            f"another name or checkpoints.remote.url to begin again"
        )
    return None, passed_over


def _further(store: RemoteStore, known: Manifest | None, passed_over: list[str]) -> Iterator[tuple[str, Manifest]]:
    """Go through the checkpoints of ``store`` that are further than ``known``, the newest first.

    A rewind leads to smaller steps, never to fewer samples: a checkpoint of a later step than that in ``latest``, and
    of no more samples, is one that a rewind has left behind.
    """
    names = store.step_names()
    latest, samples = store.latest(), -1
    with tempfile.TemporaryDirectory() as folder:
        if latest in names:
            with contextlib.suppress(CheckpointError):
                samples = fetch_manifest(store, latest, Path(folder)).progress.consumed_samples
        for name in names:
            try:
                manifest = fetch_manifest(store, name, Path(folder))
            except StoreError:
                raise
            except CheckpointError as error:
                passed_over.append(str(error))
                continue
            found = manifest.progress.consumed_samples
            if latest is not None and step_of(Path(name)) > step_of(Path(latest)) and found <= samples:
                passed_over.append(f"{store.url}/{name}: a rewind has left it behind")
                continue
            if known is not None and found <= known.progress.consumed_samples:
                return
            yield name, manifest
