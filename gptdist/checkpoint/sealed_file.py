"""Encrypted files that are written in one stream, and of which any range can be read; no torch.

A file is a header of 64 bytes and chunks: AES-256-GCM of 1 MiB each, the last one shorter, every one with its tag of 16
bytes. The nonce is the chunk's number, under a key of the file's own: HKDF of the encryption key and the header's
random salt. The header goes into every tag, so that chunks cannot be moved between files, cut off or added.

Header: ``GPTDSEAL``, version, bytes of a chunk (4 bytes each, little endian), bytes of the whole content (8), salt
(32), 8 zeros.

Source: AES-GCM: NIST SP 800-38D; chunks with counted nonces: Hoang et al. 2015, "Online Authenticated-Encryption and
its Nonce-Reuse Misuse-Resistance", section 7 (STREAM), with the length in the header in place of a last-chunk mark.
"""

import os
import struct
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gptdist.checkpoint.keys import SealingKey
from gptdist.errors import CheckpointError

CIPHER = "AES-256-GCM"

_MAGIC, _VERSION = b"GPTDSEAL", 1
_HEADER = struct.Struct("<8sIIQ32s8x")
_SALT_BYTES, _TAG_BYTES = 32, 16
_CHUNK_BYTES = 1 << 20


class Sink(Protocol):
    """Takes bytes."""

    def write(self, content: "bytes | memoryview") -> object:
        """Take ``content``."""


class SealedWriter:
    """Encrypts what is written to it and hands it on."""

    def __init__(self, sink: Sink, key: SealingKey, num_bytes: int) -> None:
        """Begin a file of ``num_bytes`` of content."""
        salt = os.urandom(_SALT_BYTES)
        self._sink = sink
        self._header = _HEADER.pack(_MAGIC, _VERSION, _CHUNK_BYTES, num_bytes, salt)
        self._cipher = AESGCM(key.derive(b"file", salt))
        self._number = 0
        self._pending = bytearray()
        self._left = num_bytes
        sink.write(self._header)

    def write(self, content: bytes | memoryview) -> None:
        """Take the next bytes; whole chunks of them go on without being copied first."""
        view = memoryview(content).cast("B")
        self._left -= len(view)
        assert self._left >= 0, f"{-self._left} bytes more than announced"
        if self._pending:
            taken = min(len(view), _CHUNK_BYTES - len(self._pending))
            self._pending += view[:taken]
            view = view[taken:]
            if len(self._pending) == _CHUNK_BYTES:
                self._seal(self._pending)
                self._pending = bytearray()
        while len(view) >= _CHUNK_BYTES:
            self._seal(view[:_CHUNK_BYTES])
            view = view[_CHUNK_BYTES:]
        self._pending += view

    def finish(self) -> None:
        """Write the last chunk."""
        assert self._left == 0, f"{self._left} bytes fewer than announced"
        if self._pending:
            self._seal(self._pending)

    def _seal(self, chunk: bytes | bytearray | memoryview) -> None:
        self._sink.write(self._cipher.encrypt(_nonce(self._number), chunk, self._header))
        self._number += 1


class SealedFile:
    """Reads ranges of an encrypted file's content."""

    def __init__(self, path: Path, key: SealingKey) -> None:
        """Open ``path``.

        Raises:
            CheckpointError: it is missing, or no such file.
        """
        self._path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be opened ({error}); use an older checkpoint") from None
        self._header = self._file.read(_HEADER.size)
        if len(self._header) < _HEADER.size or self._header[:8] != _MAGIC:
            raise CheckpointError(f"{path}: is no encrypted file; use an older checkpoint")
        _, version, self._chunk_bytes, self.num_bytes, salt = _HEADER.unpack(self._header)
        if version != _VERSION:
            raise CheckpointError(f"{path}: encryption version {version} is unknown here; update gptdist")
        self._cipher = AESGCM(key.derive(b"file", salt))

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill ``target`` with the content's bytes from ``start`` on; only the chunks that hold them are read.

        Raises:
            CheckpointError: they are not what was written, or the key is another one.
        """
        stop = start + len(target)
        assert 0 <= start <= stop <= self.num_bytes, f"{start}:{stop} of {self.num_bytes} bytes"
        size = self._chunk_bytes
        for number in range(start // size, -(-stop // size)):
            begin = number * size
            chunk = self._open(number, min(size, self.num_bytes - begin))
            first, last = max(start, begin), min(stop, begin + len(chunk))
            target[first - start : last - start] = memoryview(chunk)[first - begin : last - begin]

    def _open(self, number: int, num_bytes: int) -> bytes:
        self._file.seek(_HEADER.size + number * (self._chunk_bytes + _TAG_BYTES))
        sealed = self._file.read(num_bytes + _TAG_BYTES)
        try:
            return self._cipher.decrypt(_nonce(number), sealed, self._header)
        except (InvalidTag, ValueError):
            raise CheckpointError(
                f"{self._path}: chunk {number} is not what was written, or the key is another one; use the right key, "
                f"or an older checkpoint"
            ) from None


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")
