"""The export command on a checkpoint, tokenizer and datasets that are on disk."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptdist.checkpoint.read import CheckpointReader
from gptdist.cli.main import main
from gptdist.compress import trained_on
from gptdist.compress.export import trained_logits
from gptdist.compress.trained_on import validation_sample
from gptdist.data.dataset import TokenDataset
from gptdist.errors import ExportError
from gptdist.tokenizer.byte import ByteTokenizer
from gptdist.tokenizer.training import train_bpe
from tests.support.datasets import LLAMA, make_documents, run_tree, write_dataset
from tests.unit.compress.exported import export, saved_run
from tests.unit.compress.small_models import Logits

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return saved_run(tmp_path, {})[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("section", [{}, LLAMA], ids=["gpt2", "llama"])
def test_command_exports_and_generates(
    section: dict[str, Any], dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder, model = saved_run(tmp_path, section)

    assert export(run_folder, "--dtype", dtype) == 0
    printed = capsys.readouterr().out
    name = "LlamaForCausalLM" if section else "GPT2LMHeadModel"
    assert f"checkpoint  {run_folder}, step 30" in printed
    assert (
        f"model       {name}, {sum(each.numel() for each in model.weights.values()):,} parameters, {dtype}" in printed
    )
    assert "same likeliest token at 100.0% of 64 positions" in printed
    record = json.loads((tmp_path / "out/export.json").read_text())
    assert (record["run"], record["step"], record["dtype"]) == ("test", 30, dtype)
    assert "2.2500 nats a token" in (tmp_path / "out/README.md").read_text()

    if dtype == "float32":  # the checkpoint and its export are the same model
        texts = []
        for path in (run_folder, tmp_path / "out"):
            assert main(["generate", str(path), "--prompt", "the loss", "--seed", "1"]) == 0
            texts.append(capsys.readouterr().out)
        assert texts[0] == texts[1]


def test_logits_of_a_checkpoint_on_disk(tmp_path: Path, megatron_logits: Logits) -> None:
    run_folder, model = saved_run(tmp_path, {"num_query_groups": 4})
    tokens = torch.randint(0, 257, (2, 32))
    reader = CheckpointReader(run_folder / "checkpoints/step_00000030")
    for _ in range(2):  # a second call must not stumble over the groups of the first
        found = trained_logits(reader, tokens, "bfloat16")
    assert torch.equal(found, megatron_logits(model, tokens, "bfloat16"))


def test_missing_tokenizer_is_named(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = run_folder.parent / "data/tokenizer"
    tokenizer.rename(tokenizer.with_name("moved"))
    assert export(run_folder) == 2
    assert f"data.tokenizer: '{tokenizer}' does not exist; run from the folder" in capsys.readouterr().err
    assert export(run_folder, "--tokenizer", str(tokenizer.with_name("moved"))) == 0


def test_other_tokenizer_is_refused(run_folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    train_bpe(make_documents(50, seed=0), 300).save(tmp_path / "bpe")
    assert export(run_folder, "--tokenizer", str(tmp_path / "bpe")) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'bpe'}: tokenizer " in error
    assert f"but the checkpoint was trained with {ByteTokenizer.fingerprint[:12]}; name that tokenizer's" in error
    assert error.count("\n") == 1


def test_missing_data_is_named(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_folder.parent / "data/code"
    code.rename(code.with_name("moved"))
    assert export(run_folder) == 2
    assert f"data.sources: '{code}' does not exist; run from the folder" in capsys.readouterr().err
    assert export(run_folder, "--data", str(code.with_name("moved"))) == 0


def test_damaged_checkpoint_is_refused(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run_folder / "checkpoints/step_00000030/rank_00000.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    assert export(run_folder) == 2
    assert "none of 1 checkpoints is whole" in capsys.readouterr().err
    assert not (run_folder.parent / "out").exists()


def test_run_without_checkpoints_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(tmp_path) == 2
    assert f"{tmp_path}: holds no checkpoint" in capsys.readouterr().err


def test_sample_takes_every_position_from_each_source(tmp_path: Path) -> None:
    config = run_tree(tmp_path)
    sample = validation_sample(config, [])
    assert sample.shape == (2, 32)
    for row, name in zip(sample, ("prose", "code"), strict=True):
        assert np.array_equal(row, TokenDataset(tmp_path / "data" / name, "validation").read(0, 32))


def test_sample_of_one_source_takes_both_ends(tmp_path: Path) -> None:
    config = run_tree(tmp_path)
    dataset = TokenDataset(tmp_path / "data/code", "validation")
    first, last = validation_sample(config, [tmp_path / "data/code"])
    assert np.array_equal(first, dataset.read(0, 32))
    assert np.array_equal(last, dataset.read(dataset.num_tokens - 32, 32))


def test_sample_is_shorter_where_the_logits_would_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained_on, "MAX_LOGIT_BYTES", 4 * 257 * 2 * 7)
    assert validation_sample(run_tree(tmp_path), []).shape == (2, 7)


def test_too_little_validation_text_is_refused(tmp_path: Path) -> None:
    config = run_tree(tmp_path)
    write_dataset(tmp_path / "tiny", documents=5)
    config["model"]["seq_length"] = 1000
    with pytest.raises(ExportError, match="tiny: no validation split has 1000 tokens; name a larger"):
        validation_sample(config, [tmp_path / "tiny"])


def test_every_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_folder, _ = saved_run(tmp_path, {})
    (tmp_path / "runs").mkdir()
    run_folder.rename(tmp_path / "runs/demo-cpu")
    monkeypatch.chdir(tmp_path)
    page = (REPOSITORY / "docs/export.md").read_text(encoding="utf-8")
    blocks = re.findall(r'```console title="examples"\n(.*?)```', page, flags=re.DOTALL)  # others are run elsewhere
    commands = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    assert len(commands) >= 5
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0, command


def test_commands_are_declared_without_torch() -> None:
    modules = "gptdist.cli.checkpoint, gptdist.cli.export, gptdist.cli.generate, gptdist.cli.import_weights"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
