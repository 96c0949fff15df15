"""``gptdist checkpoint show``: a table that stays readable, and what differs from another checkpoint."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gptdist.checkpoint.manifest import TensorEntry
from gptdist.checkpoint.show import tensor_lines
from gptdist.cli.main import main
from tests.support.ranks import repository
from tests.support.step_folders import numbered, rewrite_manifest, write_step_folder

LAYERS = {f"decoder.layers.{number}.mlp.linear_fc2.weight": numbered(4, 3, 1) for number in (0, 1, 2, 4)}


@pytest.fixture
def step(tmp_path: Path) -> Path:
    return write_step_folder(
        tmp_path / "run/checkpoints/step_00000003", {"embedding.word_embeddings.weight": numbered(1, 6, 4)} | LAYERS
    )


def test_layers_are_one_line(step: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "show", str(step.parents[1])]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"checkpoint    {step}" in lines
    assert "step          3" in lines
    assert "samples       24" in lines
    assert "tokens        768" in lines
    assert "loss          5.5000 nats (validation: -)" in lines
    assert "saved by      1 ranks: tensor parallel 1, pipeline 1, context 1, data 1, experts 1; ZeRO 1" in lines
    assert f"bytes         {(step / 'rank_00000.safetensors').stat().st_size:,} in 1 files" in lines
    assert "parameters    72 in 5 tensors" in lines
    rows = [line.split() for line in lines[lines.index("") + 2 :]]
    states = ["weight,", "exp_avg,", "exp_avg_sq"]
    assert rows == [
        ["embedding.word_embeddings.weight", "-", "6", "x", "4", "24", *states],
        ["decoder.layers.*.mlp.linear_fc2.weight", "0-2,", "4", "12", "x", "1", "48", *states],
    ]


def test_states_of_whole_tensors_are_shown_with_their_shapes(step: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = json.loads((step / "manifest.json").read_text())
    tree["whole_states"] = [
        {"tensor": name, "state": "exp_avg_sq_row", "shape": [1, 4 + (name == last)], "file": "rank_00000.safetensors"}
        for last in ["decoder.layers.4.mlp.linear_fc2.weight"]
        for name in LAYERS
    ]
    rewrite_manifest(step, tree)
    assert main(["checkpoint", "show", str(step)]) == 0
    rows = capsys.readouterr().out.splitlines()[-3:]
    assert [row.partition("exp_avg, ")[2] for row in rows] == [
        "exp_avg_sq",
        "exp_avg_sq, exp_avg_sq_row [1 x 4]",
        "exp_avg_sq, exp_avg_sq_row [1 x 5]",
    ]


def test_all_tensors_are_shown_when_asked_for(step: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "show", str(step), "--all"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in LAYERS)
    assert len(list(tensor_lines(_entries(step), every=True))) == 6


def test_layers_that_differ_in_shape_are_lines_of_their_own(step: Path) -> None:
    first, *others = _entries(step)[1:]
    lines = list(tensor_lines([first.model_copy(update={"shape": (3, 4)}), *others], every=False))
    assert [line.split()[1] for line in lines[1:]] == ["0", "1-2,"]


def test_differences_are_was_and_now(step: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_step_folder(tmp_path / "step_00000001", {"embedding.word_embeddings.weight": numbered(1, 5, 4)})
    tree = json.loads((other / "manifest.json").read_text())
    tree["config"]["model"] |= {"vocab_size": 5}
    tree["config"]["optimizer"] = {"lr": 0.1}
    tree["tokenizer_fingerprint"] = "1" * 64
    rewrite_manifest(other, tree)
    assert main(["checkpoint", "show", str(step), "--against", str(other)]) == 0
    printed = capsys.readouterr().out
    assert f"{other}, step 1 → step 3" in printed
    for line in (
        "model.vocab_size: 5 → 257",
        "optimizer: {'lr': 0.1} → None",
        "tokenizer: 111111111111 → 000000000000",
        "embedding.word_embeddings.weight: [5, 4] → [6, 4]",
        "decoder.layers.0.mlp.linear_fc2.weight: not there → [12, 1]",
    ):
        assert f"  {line}\n" in printed
    assert main(["checkpoint", "show", str(step), "--against", str(step)]) == 0
    assert "no difference in config, tokenizer or shapes" in capsys.readouterr().out


def test_no_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "show", str(tmp_path)]) == 2
    assert f"{tmp_path}: holds no checkpoint; name a run folder" in capsys.readouterr().err


def test_works_without_torch(step: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from gptdist.cli.main import main; "
        f"sys.exit(main(['checkpoint', 'show', {str(step)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=repository(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _entries(step: Path) -> list[TensorEntry]:
    tree = json.loads((step / "manifest.json").read_text())
    return [TensorEntry.from_tree(entry) for entry in tree["tensors"]]
