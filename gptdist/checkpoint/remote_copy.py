"""Copy whole checkpoints to a store and back: what a reader finds on either side is whole or not there; no torch."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from gptdist.checkpoint.find import LATEST_NAME, step_of
from gptdist.checkpoint.keys import TrustedKey
from gptdist.checkpoint.manifest import MANIFEST_NAME, Manifest, read_manifest
from gptdist.checkpoint.remote_store import RemoteStore
from gptdist.checkpoint.verify import verify
from gptdist.durable import swap_in, sync_folder, write_whole
from gptdist.errors import CheckpointError, StoreError
from gptdist.telemetry.ledger import LEDGER_NAME

RECORDS_FOLDER = "records"
"""Folder of the store, beside the step folders, for what belongs to all of them."""

FETCHED_PREFIX = ".fetched-"
"""Begins the name of a folder that is being fetched; nothing takes it for a checkpoint."""


def is_there(store: RemoteStore, folder: Path) -> bool:
    """Return whether ``store`` holds this very checkpoint, by its manifest and the sizes of its files.

    Raises:
        StoreError: the store does not answer.
        CheckpointError: a name there leads out of the folder.
    """
    if store.content(folder.name, MANIFEST_NAME) != (folder / MANIFEST_NAME).read_bytes():
        return False
    return store.file_sizes(folder.name) == {path.name: path.stat().st_size for path in _files(folder)}


def send(store: RemoteStore, folder: Path, sent: set[str], may_go_on: Callable[[], bool] = lambda: True) -> int:
    """Copy the step folder, its manifest last, and return how many bytes it has; 0 if it was left.

    A checkpoint of the same step there loses its manifest first: a reader sees the old one, none, or this one.

    Args:
        store: where to.
        folder: whole.
        sent: names of files that are there already; filled, so that another attempt need not begin anew.
        may_go_on: asked before each file; where it says no, the copy is left as it is, without a manifest.

    Raises:
        StoreError: the store does not answer, or holds something else after an upload.
        OSError: a file here cannot be read.
    """
    store.check_root()
    store.remove_file(folder.name, MANIFEST_NAME)
    sizes = {path.name: path.stat().st_size for path in _files(folder)}
    manifest_bytes = sizes.pop(MANIFEST_NAME)
    for name in sorted(sizes.keys() - sent):
        if not may_go_on():
            return 0
        store.upload(folder / name, folder.name)
        sent.add(name)
    if store.file_sizes(folder.name) != sizes:
        sent.clear()
        raise StoreError(f"{store.url}/{folder.name}: does not hold what was uploaded; another run may write there")
    if not may_go_on():
        return 0
    store.upload(folder / MANIFEST_NAME, folder.name)
    store.point_latest(folder.name)
    return sum(sizes.values()) + manifest_bytes


def send_ledger(store: RemoteStore, ledger: Path) -> None:
    """Copy a run's ledger as it is now, if it has a line; it may grow meanwhile.

    Raises:
        StoreError: the store does not answer, or holds something else after an upload.
        OSError: the file cannot be read.
    """
    if not ledger.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        as_it_is_now = Path(folder) / LEDGER_NAME
        shutil.copyfile(ledger, as_it_is_now)
        store.upload(as_it_is_now, RECORDS_FOLDER)


def fetch_ledger(store: RemoteStore, run: Path) -> None:
    """Copy the ledger of ``store`` into the folder ``run``, if there is one, and the run has none.

    Raises:
        StoreError: the store does not answer.
        CheckpointError: this disk does not take it.
    """
    if (run / LEDGER_NAME).exists():
        return
    content = store.content(RECORDS_FOLDER, LEDGER_NAME)
    if content is None:
        return
    try:
        run.mkdir(parents=True, exist_ok=True)
        write_whole(run / LEDGER_NAME, content)
    except OSError as error:
        raise CheckpointError(
            f"{run / LEDGER_NAME}: cannot be written ({error}); free space or mend the disk"
        ) from None


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]


def fetch(store: RemoteStore, name: str, checkpoints: Path, trusted: TrustedKey | None = None) -> Path:
    """Copy a checkpoint of ``store`` into the folder ``checkpoints``, verify it there, then give it its name.

    What is not signed with the private key of ``trusted`` counts as damaged.

    Raises:
        StoreError: the store does not answer.
        CheckpointError: the checkpoint there is not whole, or this disk does not take it.
    """
    partial = checkpoints / f"{FETCHED_PREFIX}{name}"
    try:
        for left_over in checkpoints.glob(f"{FETCHED_PREFIX}*"):
            shutil.rmtree(left_over)
        partial.mkdir(parents=True)
        manifest = fetch_manifest(store, name, partial)
        sizes = store.file_sizes(name)
        for entry in manifest.files:
            if sizes.get(entry.name) != entry.num_bytes:
                found = f"has {sizes[entry.name]} bytes" if entry.name in sizes else "missing"
                raise CheckpointError(
                    f"{store.url}/{name}/{entry.name}: {found}, the manifest says {entry.num_bytes}; use an older one"
                )
        for file in sizes.keys() - {MANIFEST_NAME}:
            store.download(name, file, partial / file)
        problems = verify(partial, trusted)
        if problems:
            raise CheckpointError(f"{store.url}/{name}: {problems[0]}; use an older one")
        saved_at = store.saved_at(name, MANIFEST_NAME)
        os.utime(partial / MANIFEST_NAME, (saved_at, saved_at))
        _to_disk(partial)
        swap_in(partial, checkpoints / name)
        write_whole(checkpoints / LATEST_NAME, name.encode())
    except OSError as error:
        raise CheckpointError(f"{partial}: cannot be written ({error}); free space or mend the disk") from None
    except CheckpointError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return checkpoints / name


def fetch_manifest(store: RemoteStore, name: str, folder: Path) -> Manifest:
    """Copy the manifest of a checkpoint of ``store`` into ``folder``, and return it.

    Raises:
        StoreError: the store does not answer.
        CheckpointError: there is none, it is damaged, or of another step.
    """
    content = store.content(name, MANIFEST_NAME)
    if content is None:
        raise CheckpointError(f"{store.url}/{name}: has no manifest, its upload did not end; use an older one")
    (folder / MANIFEST_NAME).write_bytes(content)
    try:
        manifest = read_manifest(folder)
    except CheckpointError as error:
        raise CheckpointError(f"{store.url}/{name}: {error}") from None
    if manifest.step != step_of(Path(name)):
        raise CheckpointError(f"{store.url}/{name}: its manifest is of step {manifest.step}; use an older one")
    return manifest


def _to_disk(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)
