"""The mean of checkpoints is a checkpoint: verified, of one model, and it says what it was made of."""

import json
from pathlib import Path

import pytest
import torch

from gptdist.checkpoint.average import average, newest_folders
from gptdist.checkpoint.find import resolve_checkpoint
from gptdist.checkpoint.manifest import Manifest, Origin, Progress, SourceRecord, read_manifest
from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.seals import write_manifest
from gptdist.checkpoint.verify import describe_file, verify
from gptdist.checkpoint.weights_only import write_weights
from gptdist.cli.main import main
from gptdist.config.model import ModelConfig
from gptdist.errors import CheckpointError
from gptdist.model.hf_names import logical_shapes
from tests.support.datasets import GPT2, LLAMA, MOE
from tests.support.memory import peak_bytes
from tests.support.ranks import run_ranks


def write(folder: Path, seed: int, *, model=GPT2, step: int | None = None, tokenizer: str = "0" * 64, weights=None):
    """A checkpoint of random weights."""
    shapes = logical_shapes(ModelConfig(**model))
    generator = torch.Generator().manual_seed(seed)
    tensors = weights or {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    step = seed if step is None else step
    write_weights(
        folder,
        tensors.items(),
        config={"name": "test", "model": dict(model)},
        progress=Progress(step=step, consumed_samples=8 * step, consumed_tokens=256 * step, optimizer_step=0),
        tokenizer_fingerprint=tokenizer,
        origin=Origin(kind="huggingface", sources=(SourceRecord(path="somewhere", files=()),)),
    )
    return tensors


@pytest.mark.parametrize("model", [GPT2, LLAMA, MOE], ids=["gpt2", "llama", "moe"])
def test_mean_of_every_tensor(tmp_path: Path, model, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [write(tmp_path / f"step_{number:08d}", number, model=model) for number in (1, 2, 3)]
    paths = [str(tmp_path / f"step_{number:08d}") for number in (1, 2, 3)]
    out = tmp_path / "mean"
    assert main(["checkpoint", "average", *paths, "--weights", "1", "1", "2", "--output", str(out)]) == 0
    assert verify(out) == []
    assert resolve_checkpoint(out) == out
    reader = CheckpointReader(out)
    assert reader.tensor_names == tuple(parts[0])
    for name in parts[0]:
        expected = (parts[0][name].double() + parts[1][name].double() + 2 * parts[2][name].double()) / 4
        assert torch.equal(reader.weight(name), expected.float()), name
    manifest = reader.manifest
    assert manifest.origin == Origin(
        kind="average",
        sources=tuple(
            SourceRecord(path=path, step=step, share=share, files=(describe_file(Path(path) / "manifest.json"),))
            for path, step, share in zip(paths, (1, 2, 3), (0.25, 0.25, 0.5), strict=True)
        ),
    )
    assert (manifest.step, manifest.progress.consumed_tokens, manifest.progress.optimizer_step) == (3, 768, 0)
    assert {entry.states for entry in manifest.tensors} == {("weight",)}
    assert f"0.500000 x {paths[2]}, step 3" in capsys.readouterr().out
    assert main(["checkpoint", "show", str(out)]) == 0
    assert f"weights alone average of\n{'':14}{paths[0]}, step 1, share 0.25" in capsys.readouterr().out


def test_mean_of_equals_is_that_number(tmp_path: Path) -> None:
    weights = write(tmp_path / "step_00000001", 1)
    for number in (2, 3):
        write(tmp_path / f"step_{number:08d}", number, weights=weights)
    average(newest_folders(tmp_path, 3), tmp_path / "mean")
    reader = CheckpointReader(tmp_path / "mean")
    assert all(torch.equal(reader.weight(name), tensor) for name, tensor in weights.items())


def test_last_takes_the_newest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2, 3):
        write(tmp_path / f"run/checkpoints/step_{number:08d}", number)
    out = tmp_path / "mean"
    assert main(["checkpoint", "average", str(tmp_path / "run"), "--last", "2", "--output", str(out)]) == 0
    assert [source.step for source in read_manifest(out).origin.sources] == [2, 3]
    other = str(tmp_path / "other")
    assert main(["checkpoint", "average", str(tmp_path / "run"), "--last", "4", "--output", other]) == 2
    assert "run: --last 4 of 3 checkpoints; ask for as many as there are" in capsys.readouterr().err
    assert main(["checkpoint", "average", str(tmp_path), str(tmp_path), "--last", "2", "--output", other]) == 2
    assert "--last: takes at least 2 of one run, got --last 2 of 2 paths" in capsys.readouterr().err


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    for number in (1, 2):
        write(tmp_path / f"step_{number:08d}", number)
    return [tmp_path / f"step_{number:08d}" for number in (1, 2)]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (GPT2 | {"activation": "gelu"}, r"model.activation: gelu_tanh → gelu; average checkpoints of one model"),
        (GPT2 | {"num_layers": 3}, r"model.num_layers: 2 → 3"),
        (GPT2 | {"norm_epsilon": 1e-6}, r"model.norm_epsilon: 1e-05 → 1e-06"),
        (GPT2 | {"seq_length": 64}, r"model.seq_length: 32 → 64"),
        (GPT2 | {"init": "mup", "mup_base_hidden_size": 16}, r"model.init: without mup → mup"),
    ],
)
def test_another_model_is_refused_by_name(pair: list[Path], tmp_path: Path, model, message: str) -> None:
    write(tmp_path / "other", 3, model=model)
    with pytest.raises(CheckpointError, match=message):
        average([*pair, tmp_path / "other"], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_what_changes_no_function_is_the_same_model(pair: list[Path], tmp_path: Path) -> None:
    shapes = ({"ffn_hidden_size": 128}, {"num_query_groups": 4})
    changes = {"ffn_hidden_size": 128, "hidden_dropout": 0.1, "init": "small", "layer_shapes": shapes}
    write(tmp_path / "other", 3, model=GPT2 | changes)
    average([*pair, tmp_path / "other"], tmp_path / "mean")
    assert verify(tmp_path / "mean") == []


def test_another_tokenizer_is_refused(pair: list[Path], tmp_path: Path) -> None:
    write(tmp_path / "other", 3, tokenizer="1" * 64)
    with pytest.raises(CheckpointError, match=r"tokenizer 000000000000 → 111111111111; average checkpoints of one"):
        average([*pair, tmp_path / "other"], tmp_path / "mean")


def test_what_cannot_be_averaged_is_refused(pair: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "mean"
    with pytest.raises(CheckpointError, match="needs at least 2 checkpoints, got 1"):
        average(pair[:1], out)
    with pytest.raises(CheckpointError, match=r"step_00000001: named twice; name it once"):
        average([*pair, pair[0]], out)
    for shares in ([1.0], [1.0, 0.0], [1.0, float("nan")], [1.0, float("inf")]):
        with pytest.raises(CheckpointError, match=r"--weights: .* for 2 checkpoints; give one number above 0 for each"):
            average(pair, out, shares)
    with pytest.raises(CheckpointError, match=r"step_00000002: exists; remove it, or choose another folder"):
        average(pair, pair[1])
    content = bytearray((pair[1] / "weights.safetensors").read_bytes())
    content[-3] ^= 1
    (pair[1] / "weights.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"content has sha256 .*the checkpoint is damaged"):
        average(pair, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in pair], "nothing is left behind"


def test_manifest_with_other_shapes_is_refused(pair: list[Path], tmp_path: Path) -> None:
    tree = json.loads((pair[1] / "manifest.json").read_text())
    tree["tensors"][0]["shape"] = [32, 257]
    write_manifest(pair[1], Manifest.from_tree(tree))
    with pytest.raises(
        CheckpointError, match=r"'embedding.word_embeddings.weight' is \[32, 257\], .* says \[257, 32\]"
    ):
        average(pair, tmp_path / "mean")


def test_one_tensor_at_a_time_is_in_memory(tmp_path: Path) -> None:
    model = GPT2 | {"num_layers": 12, "hidden_size": 256}
    for number in (1, 2):
        write(tmp_path / f"step_{number:08d}", number, model=model)
    paths = [tmp_path / f"step_{number:08d}" for number in (1, 2)]
    whole = (paths[0] / "weights.safetensors").stat().st_size
    assert run_ranks(1, peak_bytes, average, paths, tmp_path / "mean")[0] < 0.4 * whole, "the largest is a fortieth"


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    weights = {name: torch.zeros(shape) for name, shape in logical_shapes(ModelConfig(**GPT2)).items()}
    weights["decoder.final_layernorm.weight"][3] = float("nan")
    with pytest.raises(CheckpointError, match=r"decoder.final_layernorm.weight: holds numbers that are not finite"):
        write(tmp_path / "step_00000001", 1, weights=weights)
    assert not list(tmp_path.iterdir())
