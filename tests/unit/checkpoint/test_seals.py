"""Encrypted and signed checkpoints: read by those who may, and damaged for everybody else."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gptdist.checkpoint.find import newest_whole
from gptdist.checkpoint.keys import KEY_VARIABLE, SealingKey, TrustedKey
from gptdist.checkpoint.manifest import Manifest
from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.seals import Protection, write_manifest
from gptdist.checkpoint.verify import verify
from gptdist.config.protection import ProtectionConfig
from gptdist.errors import CheckpointError
from tests.support.step_folders import numbered, write_step_folder

DIGITS = "ab" * 32
KEY = SealingKey.parse(DIGITS, "here")
WHOLE = {"x": numbered(1, 6, 4), "y": numbered(2, 4, 3)}


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, TrustedKey]:
    """A pair of keys: the file of the private one, and the public one."""
    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, TrustedKey.read(public)


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    return write_step_folder(tmp_path / "step_00000003", WHOLE, cuts=(5,), protection=Protection(KEY))


def _edit(step: Path, protection: Protection, **values: object) -> None:
    """Change the manifest as somebody would who has the keys of ``protection`` and makes everything else fit."""
    tree = {**json.loads((step / "manifest.json").read_text()), **values}
    write_manifest(step, Manifest.from_tree(tree), protection)


def test_only_who_has_the_key_reads_an_encrypted_checkpoint(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify(sealed) == [], "hashes need no key"
    with pytest.raises(CheckpointError, match=r"is encrypted; the environment has no GPTDIST_CHECKPOINT_KEY; set it"):
        CheckpointReader(sealed).weight("x")
    monkeypatch.setenv(KEY_VARIABLE, "cd" * 32)
    with pytest.raises(CheckpointError, match=f"is encrypted with key {KEY.fingerprint}, the one at hand is"):
        CheckpointReader(sealed).weight("x")
    assert "the one at hand is" in verify(sealed)[0]
    monkeypatch.setenv(KEY_VARIABLE, "nothing")
    assert "is not 64 hexadecimal digits" in verify(sealed)[0]
    monkeypatch.setenv(KEY_VARIABLE, DIGITS)
    assert verify(sealed) == []
    reader = CheckpointReader(sealed)
    assert torch.equal(reader.weight("x"), WHOLE["x"].view(6, 4))
    assert torch.equal(reader.block("y", "exp_avg", outer=(1, 2), along=(1, 3)), WHOLE["y"][1:, 1:3] + 1000)


def test_the_key_is_found_where_the_run_had_it(sealed: Path, tmp_path: Path) -> None:
    config = {"model": {}, "checkpoints": {"protection": {"key_path": str(tmp_path / "key")}}}
    _edit(sealed, Protection(KEY), config=config)
    with pytest.raises(CheckpointError, match=r"key does not exist and the environment has no"):
        CheckpointReader(sealed).weight("x")
    (tmp_path / "key").write_text(DIGITS)
    assert torch.equal(CheckpointReader(sealed).weight("x"), WHOLE["x"].view(6, 4))


def test_an_unknown_cipher_is_refused(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, DIGITS)
    _edit(sealed, Protection(KEY), encryption={"cipher": "ROT13", "key_fingerprint": KEY.fingerprint})
    with pytest.raises(CheckpointError, match="encrypted with ROT13, not known here"):
        CheckpointReader(sealed).weight("x")


def test_a_manifest_edited_without_the_key_is_found(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _edit(sealed, Protection(), data_fingerprints={"text": "0"})
    assert verify(sealed) == [], "everything fits, and only the key can tell"
    monkeypatch.setenv(KEY_VARIABLE, DIGITS)
    assert "nobody with the key wrote this manifest" in verify(sealed)[0]
    _edit(sealed, Protection(KEY))
    assert verify(sealed) == []
    (sealed / "manifest.hmac").unlink()
    assert "nobody with the key wrote this manifest" in verify(sealed)[0]


def test_unsigned_checkpoints_count_as_damaged(tmp_path: Path, keys: tuple[Path, TrustedKey]) -> None:
    private, trusted = keys
    signed = write_step_folder(
        tmp_path / "checkpoints/step_00000003", WHOLE, protection=Protection(signing_key_path=private)
    )
    assert verify(signed, trusted) == []
    newer = tmp_path / "checkpoints/step_00000004"
    shutil.copytree(signed, newer)
    _edit(newer, Protection(), progress={**json.loads((signed / "manifest.json").read_text())["progress"], "step": 4})
    assert verify(newer) == []
    (problem,) = verify(newer, trusted)
    assert problem == f"{newer}/manifest.sig: not signed by the private key of {trusted.path}"
    assert newest_whole(tmp_path / "checkpoints", trusted=trusted) == (signed, [problem])
    assert newest_whole(tmp_path / "checkpoints") == (newer, [])


def test_an_old_checkpoint_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    old = write_step_folder(tmp_path / "step_00000003", WHOLE)
    shutil.copytree(old, tmp_path / "step_00000009")
    assert verify(tmp_path / "step_00000009") == [
        f"{tmp_path}/step_00000009: holds step 3; it was renamed, give it back its name"
    ]


def test_every_byte_of_manifest_and_sums_counts(tmp_path: Path) -> None:
    step = write_step_folder(tmp_path / "step_00000003", {"x": numbered(1, 2, 2)})
    for name in ("manifest.json", "SHA256SUMS"):
        content = (step / name).read_bytes()
        for place in range(len(content)):
            damaged = bytearray(content)
            damaged[place] ^= 1
            (step / name).write_bytes(damaged)
            assert verify(step), f"byte {place} of {name}"
        (step / name).unlink()
        assert verify(step), f"no {name}"
        (step / name).write_bytes(content)
    assert verify(step) == []


def test_the_sums_are_what_sha256sum_reads(tmp_path: Path) -> None:
    step = write_step_folder(tmp_path / "step_00000003", WHOLE, cuts=(5,))
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=step, check=True, capture_output=True)
    (step / "rank_00001.safetensors").write_bytes(b"")
    failed = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=step, check=False, capture_output=True)
    assert failed.returncode == 1


def test_a_run_has_its_keys_before_it_begins(
    tmp_path: Path, keys: tuple[Path, TrustedKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    private, trusted = keys
    assert Protection.of(ProtectionConfig()) == Protection()
    with pytest.raises(CheckpointError, match=r"checkpoints\.protection\.encrypt: the environment has no"):
        Protection.of(ProtectionConfig(encrypt=True))
    with pytest.raises(CheckpointError, match="no private key"):
        Protection.of(ProtectionConfig(signing_key_path=str(tmp_path / "none"), trusted_key_path=str(trusted.path)))
    monkeypatch.setenv(KEY_VARIABLE, DIGITS)
    found = Protection.of(
        ProtectionConfig(encrypt=True, signing_key_path=str(private), trusted_key_path=str(trusted.path))
    )
    assert (found.sealing_key, found.signing_key_path) == (KEY, private)
    assert found.trusted_key is not None


def test_keys_without_a_use_are_refused() -> None:
    assert ProtectionConfig(key_path="k").problems() == [
        "checkpoints.protection.key_path: belongs to encrypt true; set that, or remove it"
    ]
    (problem,) = ProtectionConfig(signing_key_path="k").problems()
    assert problem.startswith("checkpoints.protection.signing_key_path: needs trusted_key_path")
