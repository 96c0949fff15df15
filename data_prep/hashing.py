"""The hashes that decide identity, split and order; they are part of the format and never change.

Texts are told apart by 128 bits of XXH3: of 10^11 different texts two are taken for equal with probability 2·10^-17.
Split and order are mixed from those bits, many texts at once.
"""

import hashlib

import numpy as np
import xxhash

DIGEST_BYTES = 16
_SPLIT_SALT = b"gptdist split 1"
"""Not the seed: a document must never move between training and validation."""

Words = np.ndarray
"""uint64."""


def text_digest(utf8: bytes) -> bytes:
    """Return the XXH3-128 of a text, 16 bytes."""
    return xxhash.xxh3_128_digest(utf8)


def file_order_key(seed: int, label: str) -> int:
    """Return the 64-bit place of a file in the random order that ``seed`` keys."""
    found = hashlib.blake2b(label.encode(), digest_size=8, key=_seed_bytes(seed), person=b"gptdist order")
    return int.from_bytes(found.digest(), "little")


def order_keys(seed: int, digests: bytes) -> Words:
    """Return the 64-bit places of texts in the random order that ``seed`` keys.

    Args:
        seed: any 64-bit integer.
        digests: the texts' digests, one behind the other.
    """
    return _mixed(digests, hashlib.blake2b(b"gptdist order 1", digest_size=16, key=_seed_bytes(seed)).digest())


def validation_places(digests: bytes) -> np.ndarray:
    """Return for each text a number from 0 to 1; it is validation where that is below the fraction asked for."""
    return _mixed(digests, hashlib.blake2b(_SPLIT_SALT, digest_size=16).digest()) / 2.0**64


def _seed_bytes(seed: int) -> bytes:
    return seed.to_bytes(8, "little", signed=True)


def _mixed(digests: bytes, key: bytes) -> Words:
    """Hash 128 bits to 64 under a key of 128, a half after the other."""
    halves = np.frombuffer(digests, dtype="<u8").reshape(-1, 2)
    first, second = np.frombuffer(key, dtype="<u8")
    return _scrambled(_scrambled(halves[:, 0] ^ first) ^ halves[:, 1] ^ second)


def _scrambled(words: Words) -> Words:
    """Apply a bijection of 64 bits in which every bit depends on every other.

    Source: the finalizer of MurmurHash3 with the constants of David Stafford's variant 13 (as in SplitMix64).
    """
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
