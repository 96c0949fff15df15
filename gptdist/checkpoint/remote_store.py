"""The checkpoints of a run in a store elsewhere, through fsspec; no torch.

``<url>/<run>/step_…/`` holds the same files as a step folder here, and ``<url>/<run>/latest`` the name of the newest.
A step folder there counts from the moment its manifest is there.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from gptdist.checkpoint.find import LATEST_NAME, is_step_folder_name, step_of
from gptdist.checkpoint.manifest import plain_file_name
from gptdist.errors import CheckpointError, StoreError

LATEST_MAX_BYTES = 100


class RemoteStore:
    """One run's folder in the store that a URL names."""

    def __init__(self, url: str, run: str) -> None:
        """Ask nothing yet.

        Raises:
            StoreError: the protocol's package cannot be used.
        """
        self.url = f"{url.rstrip('/')}/{run}"
        self._protocol = url.partition("://")[0]
        options = {"auto_mkdir": True} if self._protocol == "file" else {}
        with self._told("be opened"):
            self._files: Any = fsspec.filesystem(
                self._protocol, skip_instance_cache=True, use_listings_cache=False, **options
            )
            self._path = self._files._strip_protocol(self.url)
            root = self._files._strip_protocol(url)
        # What has to be there before: a mounted disk, or a bucket. Folders in a bucket are but names.
        self._root = root if self._protocol == "file" else root.partition("/")[0]

    def step_names(self) -> list[str]:
        """Return the names of the step folders, newest first; other names in the listing are not looked at.

        Raises:
            StoreError: the store does not answer, or bucket or disk are not there.
        """
        with self._told("be listed"):
            try:
                found = self._files.ls(self._path, detail=False)
            except FileNotFoundError:
                self.check_root()
                return []
        names = {str(path).rstrip("/").rpartition("/")[2] for path in found}
        return sorted(
            (name for name in names if is_step_folder_name(name)), key=lambda name: step_of(Path(name)), reverse=True
        )

    def latest(self) -> str | None:
        """Return the step folder's name in ``latest``, if there is one.

        Raises:
            StoreError: the store does not answer.
        """
        content = self._read(LATEST_NAME, LATEST_MAX_BYTES)
        name = "" if content is None else content.decode("utf-8", "replace")
        return name if is_step_folder_name(name) else None

    def file_sizes(self, name: str) -> dict[str, int]:
        """Return the files of a step folder with their sizes in bytes.

        Raises:
            CheckpointError: a file's name leads out of the folder.
            StoreError: the store does not answer.
        """
        with self._told(f"list {name}"):
            try:
                found = self._files.ls(f"{self._path}/{name}", detail=True)
            except FileNotFoundError:
                return {}
        sizes = {}
        for entry in found:
            if entry["type"] != "file" or str(entry["name"]).endswith("/"):
                continue  # folders, and the empty objects that stand for some
            try:
                sizes[plain_file_name(PurePosixPath(entry["name"]).name)] = int(entry["size"])
            except ValueError as error:
                raise CheckpointError(f"{self.url}/{name}: {error}") from None
        return sizes

    def content(self, name: str, file: str) -> bytes | None:
        """Return what a file of a step folder holds; none if it is not there.

        Raises:
            StoreError: the store does not answer.
        """
        return self._read(f"{name}/{file}", None)

    def saved_at(self, name: str, file: str) -> float:
        """Return when a file of a step folder was written, in seconds since 1970.

        Raises:
            StoreError: the store does not answer, or there is no such file.
        """
        with self._told(f"look at {name}/{file}"):
            return float(self._files.modified(f"{self._path}/{name}/{file}").timestamp())

    def download(self, name: str, file: str, target: Path) -> None:
        """Fetch a file of a step folder.

        Raises:
            StoreError: the store does not answer, or there is no such file.
        """
        with self._told(f"give {name}/{file}"):
            self._files.get_file(f"{self._path}/{name}/{file}", str(target))

    def upload(self, source: Path, name: str) -> int:
        """Copy a file into a step folder, compare size and, where the store has one, MD5; return its bytes.

        Raises:
            StoreError: the store does not answer, or holds something else now.
        """
        path, num_bytes = f"{self._path}/{name}/{source.name}", source.stat().st_size
        with self._told(f"take {name}/{source.name}"):
            self._files.put_file(str(source), path)
            found = int(self._files.info(path)["size"])
            stated = self._stated_md5(path)
        if found != num_bytes:
            raise StoreError(f"{self.url}/{name}/{source.name}: has {found} bytes after the upload, not {num_bytes}")
        if stated is not None:
            with source.open("rb") as file:
                md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if stated != md5:
                raise StoreError(f"{self.url}/{name}/{source.name}: has MD5 {stated} after the upload, not {md5}")
        return num_bytes

    def point_latest(self, name: str) -> None:
        """Write ``name`` into ``latest``.

        Raises:
            StoreError: the store does not answer.
        """
        with self._told(f"take {LATEST_NAME}"):
            self._files.pipe_file(f"{self._path}/{LATEST_NAME}", name.encode())

    def remove_file(self, name: str, file: str) -> None:
        """Remove a file of a step folder, if it is there.

        Raises:
            StoreError: the store does not answer, or refuses.
        """
        with self._told(f"remove {name}/{file}"):
            try:
                self._files.rm_file(f"{self._path}/{name}/{file}")
            except FileNotFoundError:
                return

    def remove(self, name: str) -> None:
        """Remove what is in a step folder; its manifest has to be gone before.

        Raises:
            StoreError: the store does not answer, or refuses.
        """
        with self._told(f"remove {name}"):
            try:
                self._files.rm(f"{self._path}/{name}", recursive=True)
            except FileNotFoundError:
                return

    def _read(self, below: str, end: int | None) -> bytes | None:
        with self._told(f"give {below}"):
            try:
                return bytes(self._files.cat_file(f"{self._path}/{below}", end=end))
            except FileNotFoundError:
                return None

    def check_root(self) -> None:
        """Tell an empty store from one that is not there: a bucket that was never made, a disk that is not mounted.

        Raises:
            StoreError: it is not there, or does not answer.
        """
        with self._told("be found"):
            try:
                self._files.info(self._root)
            except PermissionError:
                return  # whoever may use one folder only is not told about the bucket
            except FileNotFoundError:
                raise StoreError(
                    f"checkpoints.remote.url: {self._protocol}://{self._root} does not exist; make it or change the URL"
                ) from None

    def _stated_md5(self, path: str) -> str | None:
        """Return the MD5 that S3 states; an ETag is one where the object came in one piece, encrypted by no key."""
        if self._protocol != "s3":
            return None
        bucket, key, _ = self._files.split_path(path)
        head = self._files.call_s3("head_object", Bucket=bucket, Key=key)
        etag = str(head.get("ETag", "")).strip('"')
        is_md5 = re.fullmatch(r"[0-9a-f]{32}", etag) and head.get("ServerSideEncryption") in {None, "AES256"}
        return etag if is_md5 else None

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turn whatever a store's client raises into one line.

        Each client raises errors of its own and of the libraries below it, with no base in common but Exception.
        """
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise StoreError(
                f"checkpoints.remote: {self.url} cannot {what} ({said}); look at the network, the URL and the "
                f"credentials in the environment"
            ) from None
