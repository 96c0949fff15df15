"""The hashes that decide identity, split and order; they are part of the format and never change."""

import hashlib

DIGEST_BYTES = 16
_SPLIT_SALT = b"gptdist split 1"
"""Not the seed: a document must never move between training and validation."""


def text_digest(utf8: bytes) -> bytes:
    """Return the BLAKE2b-128 of a text."""
    return hashlib.blake2b(utf8, digest_size=DIGEST_BYTES).digest()


def order_key(seed: int, content: bytes) -> int:
    """Return the 64-bit place of ``content`` in the random order that ``seed`` keys."""
    key = seed.to_bytes(8, "little", signed=True)
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, key=key, person=b"gptdist order").digest(), "little")


def validation_place(digest: bytes) -> float:
    """Return a number from 0 to 1; a document is validation where it is below the fraction asked for."""
    return int.from_bytes(hashlib.blake2b(digest, digest_size=8, key=_SPLIT_SALT).digest(), "little") / 2.0**64
