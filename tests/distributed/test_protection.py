"""A run with keys: its checkpoints are encrypted and signed, and it goes on from such ones only."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gptdist.checkpoint.find import step_folders
from gptdist.checkpoint.keys import TrustedKey
from gptdist.checkpoint.verify import verify
from gptdist.cli.main import main
from tests.support.datasets import run_tree
from tests.support.jobs import train_steps
from tests.support.ranks import run_ranks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text("ab" * 32)
    key = Ed25519PrivateKey.generate()
    (tmp_path / "private.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (tmp_path / "public.pem").write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return tmp_path


def _tree(folder: Path, name: str, **parallel: int) -> dict:
    protection = {
        "encrypt": True,
        "key_path": str(folder / "key"),
        "signing_key_path": str(folder / "private.pem"),
        "trusted_key_path": str(folder / "public.pem"),
    }
    return run_tree(folder, run_dir=str(folder / name), parallel=parallel, checkpoints={"protection": protection})


def test_an_encrypted_run_goes_on_as_one_in_the_clear_does(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = run_tree(folder, run_dir=str(folder / "plain"), parallel={"zero_stage": 1})
    expected = run_ranks(2, train_steps, plain, 4, 4)[0]
    run_ranks(2, train_steps, _tree(folder, "sealed", zero_stage=1), 2, 2)
    (step,) = step_folders(folder / "sealed" / "checkpoints")
    assert verify(step, TrustedKey.read(folder / "public.pem")) == []
    assert (step / "rank_00000.safetensors").read_bytes()[:8] == b"GPTDSEAL"
    assert b"word_embeddings" not in (step / "rank_00001.safetensors").read_bytes()
    resumed = run_ranks(2, train_steps, _tree(folder, "sealed", zero_stage=1), 4, 4)[0]
    assert resumed == expected[2:], "bit for bit"
    assert main(["checkpoint", "verify", str(step), "--trusted-key", str(folder / "public.pem")]) == 0
    (step / "manifest.sig").unlink()
    assert main(["checkpoint", "verify", str(step), "--trusted-key", str(folder / "public.pem")]) == 2
    assert f"not signed by the private key of {folder / 'public.pem'}" in capsys.readouterr().err
    assert main(["checkpoint", "sign", str(step), "--key", str(folder / "private.pem")]) == 0
    assert verify(step, TrustedKey.read(folder / "public.pem")) == []
    (folder / "key").write_text("cd" * 32)
    with pytest.raises(AssertionError, match=r"is encrypted with key .*, the one at hand is"):
        run_ranks(1, train_steps, _tree(folder, "sealed", zero_stage=0), 6)
