"""Keys that checkpoints are encrypted and signed with; no torch.

An encryption key is 32 bytes, written as 64 hexadecimal digits in a file or in the environment. Every use has a key of
its own that is derived from it, so that no two files share a key and a counter. Signatures are Ed25519, with keys in
PEM files.

Source: HKDF: RFC 5869; HMAC: RFC 2104; Ed25519: RFC 8032.
"""

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gptdist.errors import CheckpointError

KEY_BYTES = 32
KEY_VARIABLE = "GPTDIST_CHECKPOINT_KEY"
"""Environment variable that holds the encryption key where no file does."""

_HOW_TO_MAKE_ONE = "make one with: openssl rand -hex 32"


@dataclass(frozen=True)
class SealingKey:
    """Key of encrypted checkpoints; never printed."""

    _secret: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str, where: str) -> Self:
        """Return the key that ``text`` writes in hexadecimal digits.

        Raises:
            CheckpointError: it does not; the text is not shown.
        """
        try:
            secret = bytes.fromhex(text.strip())
        except ValueError:
            secret = b""
        if len(secret) != KEY_BYTES:
            raise CheckpointError(f"{where}: is not {2 * KEY_BYTES} hexadecimal digits; {_HOW_TO_MAKE_ONE}")
        return cls(secret)

    @classmethod
    def find(cls, key_path: Path | None, environment: Mapping[str, str] = os.environ) -> Self | None:
        """Return the key in the environment, or else in the file ``key_path``; None where neither holds one.

        Raises:
            CheckpointError: what is there is no key, or cannot be read.
        """
        if environment.get(KEY_VARIABLE):
            return cls.parse(environment[KEY_VARIABLE], f"environment variable {KEY_VARIABLE}")
        if key_path is None:
            return None
        try:
            text = key_path.read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(f"{key_path}: cannot be read ({error}); mend it, or set {KEY_VARIABLE}") from None
        return cls.parse(text, str(key_path))

    @property
    def fingerprint(self) -> str:
        """What tells this key from others without giving it away, 16 hexadecimal digits."""
        return self.derive(b"fingerprint", salt=b"").hex()[:16]

    def derive(self, use: bytes, salt: bytes) -> bytes:
        """Return the key for one ``use``, with ``salt`` where it has many; 32 bytes."""
        return HKDF(hashes.SHA256(), KEY_BYTES, salt or None, b"gptdist checkpoint " + use).derive(self._secret)

    def code_of(self, content: bytes) -> str:
        """Return what only somebody with this key can say of ``content``: its HMAC-SHA256."""
        return hmac.new(self.derive(b"manifest", salt=b""), content, hashlib.sha256).hexdigest()


def sign(content: bytes, key_path: Path) -> bytes:
    """Return the Ed25519 signature of ``content`` by the private key in a PEM file.

    Raises:
        CheckpointError: the file holds no such key.
    """
    try:
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CheckpointError(f"{key_path}: no private key without a password ({error}); {_MAKE_PRIVATE}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise CheckpointError(f"{key_path}: holds a key of another kind than Ed25519; {_MAKE_PRIVATE}")
    return key.sign(content)


_MAKE_PRIVATE = "make one with: openssl genpkey -algorithm ed25519 -out KEY.pem"


@dataclass(frozen=True)
class TrustedKey:
    """The public key of those whose signature a run asks for."""

    path: Path
    _key: Ed25519PublicKey = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the Ed25519 key of a PEM file.

        Raises:
            CheckpointError: the file holds none.
        """
        advice = f"make one with: openssl pkey -in PRIVATE.pem -pubout -out {path.name}"
        try:
            key = serialization.load_pem_public_key(path.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise CheckpointError(f"{path}: no public key ({error}); {advice}") from None
        if not isinstance(key, Ed25519PublicKey):
            raise CheckpointError(f"{path}: holds a key of another kind than Ed25519; {advice}")
        return cls(path, key)

    def has_signed(self, content: bytes, signature: bytes) -> bool:
        """Whether ``signature`` of ``content`` was made with the private key of this one."""
        try:
            self._key.verify(signature, content)
        except InvalidSignature:
            return False
        return True
