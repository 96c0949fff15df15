"""The digest set: exact, whatever its inner arrays do."""

import hashlib

import pytest

from data_prep.dedup import DigestSet
from data_prep.hashing import order_key, text_digest, validation_place


def digests(count: int) -> list[bytes]:
    return [hashlib.blake2b(str(i).encode(), digest_size=16).digest() for i in range(count)]


@pytest.mark.parametrize("recent", [1, 3, 64, 5000])
def test_it_knows_exactly_what_was_added(recent: int) -> None:
    seen, known = DigestSet(recent), digests(2000)
    for digest in known[:1000]:
        assert digest not in seen
        seen.add(digest)
        assert digest in seen
    assert all(digest in seen for digest in known[:1000])
    assert not any(digest in seen for digest in known[1000:])
    assert "text" not in seen
    seen.update(known[900:1100])
    assert len(seen) == 1100


def test_equal_halves_do_not_confuse_it() -> None:
    seen = DigestSet(2)
    high, low = b"\0" * 8, b"\xff" * 8
    for digest in (high + low, low + high, low + low):
        seen.add(digest)
    assert high + high not in seen
    assert all(digest in seen for digest in (high + low, low + high, low + low))


def test_the_hashes_never_change() -> None:
    """Shards and splits made last year have to stay what they are."""
    digest = text_digest(b"a document")
    assert digest.hex() == "a0dc5d4698b6574d38b6e9dc4029beaf"
    assert order_key(7, digest) == 9277766397369911735
    assert abs(validation_place(digest) - 0.67760716) < 1e-6


def test_the_share_of_validation_is_the_fraction() -> None:
    known = digests(20_000)
    assert 0.045 < sum(validation_place(digest) < 0.05 for digest in known) / len(known) < 0.055
    assert all(0.0 <= validation_place(digest) <= 1.0 for digest in known)
