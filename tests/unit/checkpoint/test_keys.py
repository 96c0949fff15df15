"""Keys are found, tell themselves apart, and never show."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519

from gptdist.checkpoint.keys import KEY_VARIABLE, SealingKey, TrustedKey, sign
from gptdist.errors import CheckpointError

DIGITS = "ab" * 32


def test_the_environment_comes_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("cd" * 32 + "\n")
    assert SealingKey.find(path, {}) == SealingKey(b"\xcd" * 32)
    assert SealingKey.find(path, {KEY_VARIABLE: DIGITS}) == SealingKey(b"\xab" * 32)
    assert SealingKey.find(None, {}) is None
    assert SealingKey.find(tmp_path / "none", {}) is None


@pytest.mark.parametrize("text", ["ab" * 31, "xy" * 32, "ab" * 33, "é"])
def test_what_is_no_key_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    for find in (lambda: SealingKey.find(path, {}), lambda: SealingKey.find(None, {KEY_VARIABLE: text})):
        with pytest.raises(CheckpointError, match=r"is not 64 hexadecimal digits; make one with: openssl") as caught:
            find()
        assert text not in str(caught.value)
    with pytest.raises(CheckpointError, match="cannot be read"):
        SealingKey.find(tmp_path, {})


def test_a_key_shows_its_fingerprint_only() -> None:
    key = SealingKey.parse(DIGITS, "here")
    assert DIGITS not in repr(key)
    assert "171" not in repr(key), "the bytes as numbers"
    assert len(key.fingerprint) == 16
    assert key.fingerprint != SealingKey(bytes(32)).fingerprint


def test_each_use_has_a_key_of_its_own() -> None:
    key = SealingKey.parse(DIGITS, "here")
    derived = {key.derive(use, salt) for use in (b"file", b"manifest") for salt in (b"", b"1", b"2")}
    assert len(derived) == 6
    assert key.code_of(b"a") != key.code_of(b"b")
    assert key.code_of(b"a") != SealingKey(bytes(32)).code_of(b"a")


def _pem(key: ed25519.Ed25519PrivateKey | x25519.X25519PrivateKey) -> tuple[bytes, bytes]:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public


def test_signatures(tmp_path: Path) -> None:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    private.write_bytes(_pem(ed25519.Ed25519PrivateKey.generate())[0])
    (tmp_path / "other.pem").write_bytes(_pem(ed25519.Ed25519PrivateKey.generate())[0])
    key = serialization.load_pem_private_key(private.read_bytes(), None)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    public.write_bytes(_pem(key)[1])
    trusted = TrustedKey.read(public)
    assert trusted.has_signed(b"content", sign(b"content", private))
    assert not trusted.has_signed(b"other content", sign(b"content", private))
    assert not trusted.has_signed(b"content", sign(b"content", tmp_path / "other.pem"))
    assert not trusted.has_signed(b"content", b"")


def test_other_files_hold_no_key(tmp_path: Path) -> None:
    path = tmp_path / "x.pem"
    path.write_text("nothing")
    for read, match in ((lambda: TrustedKey.read(path), "no public key"), (lambda: sign(b"", path), "no private key")):
        with pytest.raises(CheckpointError, match=match):
            read()
    private, public = _pem(x25519.X25519PrivateKey.generate())
    path.write_bytes(public)
    with pytest.raises(CheckpointError, match="another kind than Ed25519"):
        TrustedKey.read(path)
    path.write_bytes(private)
    with pytest.raises(CheckpointError, match="another kind than Ed25519"):
        sign(b"", path)
