"""A bundle is proved whole by its hashes, signed, encrypted, and read only as far as it is whole."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gptdist.checkpoint.keys import KEY_VARIABLE
from gptdist.cli.main import main
from gptdist.compress.bundle.protect import SEALED_CODE, SEALED_RECORD
from gptdist.compress.bundle.sums import SIGNATURE_NAME, read_sums, sums_problems, write_sums
from gptdist.errors import BundleError
from tests.unit.compress.exported import lines


def test_what_is_missing_extra_or_off_is_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "gptdist/baseline.json").write_text("{}")
    (bundle / "config.json").unlink()
    (bundle / "gptdist/.more").write_text("")
    (bundle / "tokenizer.json").rename(bundle.parent / "tokenizer.json")
    (bundle / "tokenizer.json").symlink_to(bundle.parent / "tokenizer.json")
    found = lines(capsys, "bundle", "verify", bundle)
    assert [line.partition(": ")[0].removeprefix(f"{bundle}/") for line in found] == [
        *("config.json", "gptdist/baseline.json", "tokenizer.json", "gptdist/.more"),
    ]
    assert "config.json: missing; take another copy of the folder" in found[0]
    assert "baseline.json: sha256 44136fa355b3… where SHA256SUMS says" in found[1]
    assert "is a link to elsewhere" in found[2]
    assert ".more: is not in SHA256SUMS; remove it, or take another copy" in found[3]


@pytest.mark.parametrize("line", ["nothing", f"{'0' * 64}  ../secret", f"{'0' * 64}  /etc/passwd", f"{'0' * 64} *a"])
def test_sums_that_are_none_are_refused(bundle: Path, line: str) -> None:
    with (bundle / "SHA256SUMS").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(BundleError, match=r"SHA256SUMS:15: is no hash and name of a file in the folder"):
        sums_problems(bundle)
    (bundle / "SHA256SUMS").write_bytes(b"\xff")
    with pytest.raises(BundleError, match=r"SHA256SUMS: cannot be read"):
        sums_problems(bundle)
    (bundle / "SHA256SUMS").unlink()
    with pytest.raises(BundleError, match="SHA256SUMS: missing; name a folder that 'gptdist export' wrote"):
        sums_problems(bundle)
    assert read_sums(bundle) is None


def test_readers_compare_what_they_read(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = bundle / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    commands = (
        ("generate", bundle, "--prompt", "the"),
        ("import", bundle, "--output", bundle.parent / "imported"),
        ("prune", "weights", bundle, "--output", bundle.parent / "pruned", "--method", "magnitude", "--ratio", "0.5"),
    )
    for words in commands:
        (line,) = lines(capsys, *words)
        assert line.startswith(f"{weights}: sha256 "), words
    write_sums(bundle, {})
    (bundle / "SHA256SUMS").write_text((bundle / "SHA256SUMS").read_text().replace("model.safetensors", "other"))
    (line,) = lines(capsys, *commands[0])
    assert line.startswith(f"{weights}: is not in SHA256SUMS; remove it, or")
    (bundle / "SHA256SUMS").unlink()
    assert main([str(word) for word in commands[0]]) == 0, "a folder without sums is read as it is"


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    return private, public


def test_signatures(bundle: Path, keys: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    private, public = keys
    verify = ("bundle", "verify", bundle, "--trusted-key", public)
    (line,) = lines(capsys, *verify)
    assert (
        line == f"{bundle / SIGNATURE_NAME}: missing: nobody signed with the private key of {public}; ask who made it"
    )
    assert main(["bundle", "sign", str(bundle), "--key", str(private)]) == 0
    assert main([str(word) for word in verify]) == 0
    assert capsys.readouterr().out.endswith(f"whole  {bundle}, signed by the private key of {public}\n")
    (bundle / "config.json").write_text("{}")
    (line,) = lines(capsys, "bundle", "sign", bundle, "--key", private)
    assert line.startswith(f"{bundle / 'config.json'}: sha256 ")
    write_sums(bundle, {})  # a forger mends the sums, and cannot sign them
    (line,) = lines(capsys, *verify)
    assert f"{SIGNATURE_NAME}: not signed by the private key of {public}" in line
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "other.pem"], check=True)
    assert main(["bundle", "sign", str(bundle), "--key", str(tmp_path / "other.pem")]) == 0
    assert len(lines(capsys, *verify)) == 1


def test_encrypted_and_back(
    bundle: Path, keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    key, other = tmp_path / "key", tmp_path / "other"
    key.write_text("ab" * 32)
    other.write_text("cd" * 32)
    assert main(["bundle", "sign", str(bundle), "--key", str(keys[0])]) == 0
    sealed, plain = tmp_path / "sealed", tmp_path / "plain"
    assert main(["bundle", "encrypt", str(bundle), "--output", str(sealed), "--key", str(key)]) == 0
    assert main(["bundle", "verify", str(sealed)]) == 0, "its transport can be checked without the key"
    assert b"GPT2LMHeadModel" not in b"".join(path.read_bytes() for path in sealed.rglob("*") if path.is_file())
    assert main(["bundle", "decrypt", str(sealed), "--output", str(plain), "--key", str(key)]) == 0
    assert main(["bundle", "verify", str(plain), "--trusted-key", str(keys[1])]) == 0
    files = [path.relative_to(bundle) for path in bundle.rglob("*") if path.is_file()]
    assert len(files) == 16
    assert all((plain / name).read_bytes() == (bundle / name).read_bytes() for name in files)

    def refused(*words: object) -> str:
        (line,) = lines(capsys, "bundle", "decrypt", sealed, "--output", tmp_path / "never", *words)
        assert not (tmp_path / "never").exists()
        return line

    assert "is encrypted with key" in refused("--key", other)
    assert "--key is not given and the environment has no GPTDIST_CHECKPOINT_KEY; make a key" in refused()
    assert "missing does not exist and the environment has no" in refused("--key", tmp_path / "missing")
    whole = {path: path.read_bytes() for path in sealed.rglob("*") if path.is_file()}
    config, weights = sealed / "config.json.sealed", sealed / "model.safetensors.sealed"
    weights.write_bytes(whole[weights][:-1] + bytes([whole[weights][-1] ^ 1]))
    assert "model.safetensors.sealed: chunk 0 is not what was written" in refused("--key", key)
    weights.write_bytes(whole[weights])
    small = sealed / "generation_config.json.sealed"
    small.write_bytes(whole[config])
    config.write_bytes(whole[small])
    capsys.readouterr()
    assert main(["bundle", "decrypt", str(sealed), "--output", str(tmp_path / "never"), "--key", str(key)]) == 2
    swapped = capsys.readouterr().err
    assert "config.json: sha256" in swapped
    assert "generation_config.json: sha256" in swapped
    for path, content in whole.items():
        path.write_bytes(content)
    config.unlink()
    assert "config.json.sealed: cannot be opened" in refused("--key", key)
    (sealed / SEALED_RECORD).write_text((sealed / SEALED_RECORD).read_text().replace('  "config.json",\n', ""))
    assert f"{SEALED_CODE}: nobody with the key wrote {SEALED_RECORD}" in refused("--key", key)
    for text in ("{}", json.dumps(json.loads(whole[sealed / SEALED_RECORD]) | {"files": ["../x"]})):
        (sealed / SEALED_RECORD).write_text(text)
        assert f"{SEALED_RECORD}: no record of an encrypted folder; name one of" in refused("--key", key)
    (bundle / "config.json").write_text("{}")
    (line,) = lines(capsys, "bundle", "encrypt", bundle, "--output", tmp_path / "never", "--key", key)
    assert "config.json: sha256" in line
