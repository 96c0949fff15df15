"""Signatures and encryption of folders that are handed on, with the keys and the cipher of checkpoints; no torch.

A signature is of ``SHA256SUMS``, which has the hash of every file. An encrypted folder has every file of the other
under its name with ``.sealed`` behind it, ``sealed.json`` that lists them, ``sealed.hmac`` that only somebody with the
key can make of that list, and a ``SHA256SUMS`` of its own, so that its transport can be checked without the key. Names
and sizes of files can still be read.
"""

import hmac
import json
import os
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from gptdist.checkpoint.keys import KEY_VARIABLE, SealingKey, TrustedKey, sign
from gptdist.checkpoint.sealed_file import CIPHER, SealedFile, SealedWriter
from gptdist.checkpoint.seals import SUMS_NAME
from gptdist.compress.bundle.sums import SIGNATURE_NAME, sums_problems, write_sums
from gptdist.compress.export_folder import finished_folder
from gptdist.durable import write_whole
from gptdist.errors import BundleError

SEALED_RECORD, SEALED_CODE, SEALED_SUFFIX = "sealed.json", "sealed.hmac", ".sealed"
_FORMAT = "gptdist-sealed-bundle"
_BLOCK_BYTES = 1 << 20


def bundle_problems(folder: Path, trusted: TrustedKey | None = None) -> list[str]:
    """Return every file that is missing, extra or off, and with a ``trusted`` key whether it has signed the folder.

    Raises:
        BundleError: the folder has no hashes, or they are damaged.
    """
    problems = sums_problems(folder)
    if trusted is not None:
        signature = _read(folder / SIGNATURE_NAME)
        if not trusted.has_signed(_read(folder / SUMS_NAME), signature):
            fact = "not signed by" if signature else "missing: nobody signed with"
            problems.append(f"{folder / SIGNATURE_NAME}: {fact} the private key of {trusted.path}; ask who made it")
    return problems


def sign_bundle(folder: Path, key_path: Path) -> None:
    """Sign ``folder``, of which every file has its hash.

    Raises:
        BundleError: one has not.
        CheckpointError: the file holds no private key.
    """
    if problems := sums_problems(folder):
        raise BundleError(problems)
    write_whole(folder / SIGNATURE_NAME, sign((folder / SUMS_NAME).read_bytes(), key_path))


def find_key(key_path: Path | None) -> SealingKey:
    """Return the encryption key of the environment, or of the file.

    Raises:
        BundleError: there is none.
        CheckpointError: what is there is no key.
    """
    key = SealingKey.find(key_path)
    if key is None:
        where = "--key is not given" if key_path is None else f"{key_path} does not exist"
        raise BundleError([f"{where} and the environment has no {KEY_VARIABLE}; make a key with: openssl rand -hex 32"])
    return key


def encrypt_bundle(folder: Path, output: Path, key: SealingKey) -> int:
    """Write ``folder`` encrypted to ``output``, one mebibyte in memory at a time; return the number of its files.

    Raises:
        BundleError: a file of ``folder`` has not its hash.
        ExportError: ``output`` exists, or cannot be written.
    """
    if problems := sums_problems(folder):
        raise BundleError(problems)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    with finished_folder(output, overwrite=False) as staging:
        for name in names:
            target = staging / f"{name}{SEALED_SUFFIX}"
            target.parent.mkdir(parents=True, exist_ok=True)
            _seal(folder / name, target, key)
        record = {"format": _FORMAT, "version": 1, "cipher": CIPHER, "key": key.fingerprint, "files": names}
        content = (json.dumps(record, indent=1) + "\n").encode()
        write_whole(staging / SEALED_RECORD, content)
        write_whole(staging / SEALED_CODE, key.code_of(content).encode())
        write_sums(staging, {})
    return len(names)


def decrypt_bundle(folder: Path, output: Path, key: SealingKey) -> int:
    """Write to ``output`` what ``encrypt_bundle`` was given; return the number of files.

    Raises:
        BundleError: ``folder`` is no encrypted one, was made with another key, or is not what was written.
        CheckpointError: a file of it is not what was written.
        ExportError: ``output`` exists, or cannot be written.
    """
    content = _read(folder / SEALED_RECORD)
    record = _record(folder, content)
    if record["key"] != key.fingerprint:
        raise BundleError(
            [f"{folder}: is encrypted with key {record['key']}, the one at hand is {key.fingerprint}; use that one"]
        )
    if not hmac.compare_digest(key.code_of(content).encode(), _read(folder / SEALED_CODE)):
        raise BundleError([f"{folder / SEALED_CODE}: nobody with the key wrote {SEALED_RECORD}; take another copy"])
    with finished_folder(output, overwrite=False) as staging:
        for name in record["files"]:
            target = staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _unseal(folder / f"{name}{SEALED_SUFFIX}", target, key)
        if problems := sums_problems(staging):
            # two files may have changed places: each is what was written, elsewhere
            raise BundleError([problem.replace(str(staging), str(folder)) for problem in problems])
    return len(record["files"])


def _record(folder: Path, content: bytes) -> dict[str, Any]:
    try:
        record = json.loads(content)
        names = [PurePosixPath(name) for name in record["files"]]
        is_ours = record["format"] == _FORMAT and record["version"] == 1 and record["cipher"] == CIPHER
        is_inside = not any(name.is_absolute() or ".." in name.parts for name in names)
    except (ValueError, KeyError, TypeError):
        is_ours = is_inside = False
    if not (is_ours and is_inside):
        raise BundleError(
            [f"{folder / SEALED_RECORD}: no record of an encrypted folder; name one of 'gptdist bundle encrypt'"]
        )
    return dict(record)


def _seal(source: Path, target: Path, key: SealingKey) -> None:
    with source.open("rb") as plain, target.open("wb") as sealed:
        writer = SealedWriter(sealed, key, source.stat().st_size)
        while block := plain.read(_BLOCK_BYTES):
            writer.write(block)
        writer.finish()
        _to_disk(sealed)


def _unseal(source: Path, target: Path, key: SealingKey) -> None:
    sealed = SealedFile(source, key)
    with target.open("wb") as plain:
        for start in range(0, sealed.num_bytes, _BLOCK_BYTES):
            block = bytearray(min(_BLOCK_BYTES, sealed.num_bytes - start))
            sealed.read_into(start, memoryview(block))
            plain.write(block)
        _to_disk(plain)


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _read(path: Path) -> bytes:
    """A small file, or nothing where there is none."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
