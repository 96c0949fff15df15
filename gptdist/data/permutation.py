"""A keyed permutation of 0 … size-1 that is computed, not stored: any position in constant time and no memory.

A Feistel network permutes the numbers of an even count of bits; a result that is too large is permuted again until it
fits (cycle walking), which is a permutation of the smaller range and takes fewer than four rounds on average.

Source: Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains": generalised Feistel and cycle walking. The
round function is the finaliser of MurmurHash3.
"""

import hashlib

ROUNDS = 8
_MASK = 2**64 - 1


class KeyedPermutation:
    """A permutation of ``range(size)`` that looks random and depends on ``key`` alone."""

    def __init__(self, size: int, key: str) -> None:
        """Prepare the permutation.

        Args:
            size: how many numbers; from 1 to 2^62.
            key: any text; another key gives another permutation.
        """
        assert 1 <= size <= 2**62, f"size {size}"
        self.size = size
        self._half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
        digest = hashlib.shake_256(key.encode()).digest(8 * ROUNDS)
        self._round_keys = [int.from_bytes(digest[8 * i : 8 * i + 8], "little") for i in range(ROUNDS)]

    def __getitem__(self, index: int) -> int:
        """Return where ``index`` goes."""
        assert 0 <= index < self.size, f"index {index} of {self.size}"
        while True:
            index = self._encrypt(index)
            if index < self.size:
                return index

    def _encrypt(self, number: int) -> int:
        half_mask = (1 << self._half_bits) - 1
        left, right = number >> self._half_bits, number & half_mask
        for key in self._round_keys:
            left, right = right, left ^ (_mix(right ^ key) & half_mask)
        return left << self._half_bits | right


def _mix(x: int) -> int:
    x = (x ^ x >> 33) * 0xFF51AFD7ED558CCD & _MASK
    x = (x ^ x >> 33) * 0xC4CEB9FE1A85EC53 & _MASK
    return x ^ x >> 33
