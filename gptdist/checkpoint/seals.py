"""What lies beside a manifest to tell whether it is whole, and whose it is; no torch.

``SHA256SUMS`` has the hash of the manifest and of every file, as ``sha256sum -c`` reads it. An encrypted checkpoint has
``manifest.hmac``, which only somebody with the key can make, a signed one ``manifest.sig``.
"""

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gptdist.checkpoint.keys import SealingKey, TrustedKey, sign
from gptdist.checkpoint.manifest import MANIFEST_NAME, Encryption, FileEntry, Manifest, read_manifest
from gptdist.checkpoint.sealed_file import CIPHER
from gptdist.config.protection import ProtectionConfig
from gptdist.durable import write_whole
from gptdist.errors import CheckpointError

SUMS_NAME = "SHA256SUMS"
CODE_NAME = "manifest.hmac"
SIGNATURE_NAME = "manifest.sig"


@dataclass(frozen=True)
class Protection:
    """The keys of a run."""

    sealing_key: SealingKey | None = None
    """Encrypts; none leaves checkpoints in the clear."""

    signing_key_path: Path | None = None
    trusted_key: TrustedKey | None = None

    @classmethod
    def of(cls, config: ProtectionConfig) -> Self:
        """Return the keys that ``config`` asks for.

        Raises:
            CheckpointError: one of them is missing.
        """
        key = None
        if config.encrypt:
            key = SealingKey.find(None if config.key_path is None else Path(config.key_path))
            if key is None:
                raise CheckpointError(f"checkpoints.protection.encrypt: {_no_key(config.key_path)}")
        private = None if config.signing_key_path is None else Path(config.signing_key_path)
        if private is not None:
            sign(b"", private)  # now, and not at the first save
        trusted = None if config.trusted_key_path is None else TrustedKey.read(Path(config.trusted_key_path))
        return cls(key, private, trusted)

    def encryption(self) -> Encryption | None:
        """Return what the manifest says of how files are encrypted."""
        key = self.sealing_key
        return None if key is None else Encryption(cipher=CIPHER, key_fingerprint=key.fingerprint)


UNPROTECTED = Protection()


def write_manifest(folder: Path, manifest: Manifest, protection: Protection = UNPROTECTED) -> None:
    """Write ``manifest``, and what belongs beside it, to disk for good."""
    content = json.dumps(manifest.tree()).encode()
    write_whole(folder / MANIFEST_NAME, content)
    write_whole(folder / SUMS_NAME, _sums(content, manifest.files))
    if protection.sealing_key is not None:
        write_whole(folder / CODE_NAME, protection.sealing_key.code_of(content).encode())
    if protection.signing_key_path is not None:
        write_whole(folder / SIGNATURE_NAME, sign(content, protection.signing_key_path))


def sign_checkpoint(folder: Path, key_path: Path) -> None:
    """Sign the finished checkpoint in ``folder``, which the caller has verified.

    Raises:
        CheckpointError: there is no manifest, or the file holds no private key.
    """
    read_manifest(folder)
    write_whole(folder / SIGNATURE_NAME, sign((folder / MANIFEST_NAME).read_bytes(), key_path))


def seal_problems(folder: Path, manifest: Manifest, trusted: TrustedKey | None) -> list[str]:
    """Return what is wrong with the manifest in ``folder``.

    Whether somebody with the key wrote it is looked at where the key is at hand, and the signature where there is a
    ``trusted`` key.
    """
    content, problems = (folder / MANIFEST_NAME).read_bytes(), []
    if _read(folder / SUMS_NAME) != _sums(content, manifest.files):
        problems.append(f"{folder / SUMS_NAME}: does not fit the manifest")
    if manifest.encryption is not None:
        try:
            key = _find(manifest)
        except CheckpointError as error:
            return [*problems, str(error)]
        if key is not None and key.fingerprint != manifest.encryption.key_fingerprint:
            problems.append(f"{folder}: {_other_key(manifest, key)}")
        elif key is not None and not hmac.compare_digest(key.code_of(content).encode(), _read(folder / CODE_NAME)):
            problems.append(f"{folder / CODE_NAME}: nobody with the key wrote this manifest")
    if trusted is not None and not trusted.has_signed(content, _read(folder / SIGNATURE_NAME)):
        problems.append(f"{folder / SIGNATURE_NAME}: not signed by the private key of {trusted.path}")
    return problems


def key_to_read(folder: Path, manifest: Manifest) -> SealingKey | None:
    """Return the key that the checkpoint in ``folder`` is read with; None where it is not encrypted.

    Raises:
        CheckpointError: it is, and the key is missing or another one.
    """
    if manifest.encryption is None:
        return None
    if manifest.encryption.cipher != CIPHER:
        raise CheckpointError(f"{folder}: encrypted with {manifest.encryption.cipher}, not known here; update gptdist")
    key = _find(manifest)
    if key is None:
        raise CheckpointError(f"{folder}: is encrypted; {_no_key(_key_path(manifest))}")
    if key.fingerprint != manifest.encryption.key_fingerprint:
        raise CheckpointError(f"{folder}: {_other_key(manifest, key)}")
    return key


def _find(manifest: Manifest) -> SealingKey | None:
    path = _key_path(manifest)
    return SealingKey.find(None if path is None else Path(path))


def _key_path(manifest: Manifest) -> str | None:
    """Return where the run that saved has its key."""
    path = manifest.config.get("checkpoints", {}).get("protection", {}).get("key_path")
    return path if isinstance(path, str) else None


def _no_key(path: str | None) -> str:
    where = f"{path} does not exist and " if path is not None else ""
    return f"{where}the environment has no GPTDIST_CHECKPOINT_KEY; set it to the key, 64 hexadecimal digits"


def _other_key(manifest: Manifest, key: SealingKey) -> str:
    assert manifest.encryption is not None, "asked before"
    return (
        f"is encrypted with key {manifest.encryption.key_fingerprint}, the one at hand is {key.fingerprint}; set "
        f"GPTDIST_CHECKPOINT_KEY to the right one"
    )


def _sums(manifest: bytes, files: Sequence[FileEntry]) -> bytes:
    lines = [f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST_NAME}"]
    lines += [f"{entry.sha256}  {entry.name}" for entry in files]
    return ("\n".join(lines) + "\n").encode()


def _read(path: Path) -> bytes:
    """Return a small file, or nothing where there is none."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
