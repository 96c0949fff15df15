"""The command cuts a saved run to half; what it writes exports, and describes the run that trains it on."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptdist.checkpoint.manifest import Manifest, read_manifest
from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.verify import verify
from gptdist.cli.main import main
from gptdist.compress.bundle.held_out import HeldOut, held_out_bytes
from gptdist.compress.calibration import CalibrationOptions
from gptdist.compress.prune import structure
from gptdist.compress.prune.held_out import BUNDLED_FILE, held_out_tokens
from gptdist.compress.prune.next_run import file_problems, next_run
from gptdist.compress.prune.slicing import Kept, KeptLayer, pruned_tensors
from gptdist.compress.prune.structure import UNITS_FILE
from gptdist.config.load import load_config
from gptdist.config.model import ModelConfig
from gptdist.config.run import RunConfig
from gptdist.errors import CheckpointError, ConfigError, ExportError
from gptdist.model.arithmetic import num_parameters
from tests.support.datasets import GPT2, LLAMA, run_tree
from tests.unit.compress import exported as exported_models
from tests.unit.compress.exported import saved_run
from tests.unit.compress.small_models import TrainedModel, trained

FEW = ["--calibration-sequences", "6", "--held-out-sequences", "4", "--device", "cpu"]


def prune(source: Path, output: Path, *options: str) -> int:
    return main(["prune", "structure", str(source), "--output", str(output), *options, *FEW])


def kept_units(folder: Path) -> Kept:
    tree = json.loads((folder / UNITS_FILE).read_text())
    layers = tuple(
        KeptLayer(**{name: tuple(v) if isinstance(v, list) else v for name, v in one.items()}) for one in tree["layers"]
    )
    return Kept(layers, tuple(tree["hidden"]))


def assert_is_a_slice(folder: Path, model: TrainedModel) -> None:
    reader = CheckpointReader(folder)
    for name, expected in pruned_tensors(model.config, kept_units(folder), model.weight):
        assert torch.equal(reader.weight(name), expected), name


@pytest.mark.parametrize("section", [{}, LLAMA], ids=["gpt2", "llama"])
def test_half_of_a_run_exports_and_goes_on(
    section: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder, model = saved_run(tmp_path, section)
    output, config_file = tmp_path / "half", tmp_path / "half.yaml"
    options = ["--target-parameters", "0.5", "--candidates", "3", "--axes", "ffn,hidden,heads,layers"]
    assert prune(run_folder, output, *options, "--multiple-of", "4", "--write-config", str(config_file)) == 0
    printed = capsys.readouterr().out
    whole, child = model.config, ModelConfig.from_tree(read_manifest(output).config["model"])
    assert 0.475 * num_parameters(whole) < num_parameters(child) <= 0.5 * num_parameters(whole)
    assert f"parameters   {num_parameters(child):,} of {num_parameters(whole):,} (" in printed
    assert "not exported" not in printed
    rows = [line.split() for line in printed.splitlines()[1:4]]
    assert [row[2] for row in rows] == sorted(row[2] for row in rows)  # measured losses, the best first
    assert f"gptdist launch local {config_file}" in printed
    assert verify(output) == []
    assert_is_a_slice(output, model)
    assert_origin(read_manifest(output), run_folder, rows[0][2])

    config = load_config(RunConfig, config_file)
    assert (config.model, config.name, config.training.init_from) == (child, "half", output)
    assert config.folder == Path("runs/half")
    assert config.training.train_steps == 6

    assert main(["checkpoint", "show", str(output)]) == 0
    assert "method: structure, by activations" in capsys.readouterr().out
    assert main(["export", str(output), "--to", "hf", "--output", str(tmp_path / "out")]) == 0  # compares logits
    assert "same likeliest token at 100.0% of 64 positions" in capsys.readouterr().out


def assert_origin(manifest: Manifest, run_folder: Path, loss: str) -> None:
    origin, progress = manifest.origin, manifest.progress
    assert origin is not None
    assert origin.kind == "pruned"
    assert origin.sources[0].path == str(run_folder / "checkpoints/step_00000030")
    assert f"→ {loss} nats a token" in origin.facts["loss"]
    assert origin.facts["calibration"].startswith("6 sequences of 32 tokens of the training mixture")
    assert (progress.step, progress.consumed_tokens, progress.optimizer_step) == (30, 7680, 0)
    assert progress.validation_loss is None


@pytest.fixture(scope="module")
def gpt2_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainedModel]:
    return saved_run(tmp_path_factory.mktemp("structure"), GPT2)


def test_sizes_are_cut_as_named(
    gpt2_run: tuple[Path, TrainedModel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GPT-2's class needs a hidden size of heads x head size: that another is trained, not exported, is said."""
    run_folder, model = gpt2_run
    output = tmp_path / "cut"
    options = ["--ffn", "50", "--heads", "3", "--layers", "1", "--layers-by", "loss", "--over-sequences", "mean"]
    assert prune(run_folder, output, *options) == 0
    assert_is_a_slice(output, model)
    child = ModelConfig.from_tree(read_manifest(output).config["model"])
    assert (child.num_layers, child.ffn_size, child.num_attention_heads, child.head_size) == (1, 50, 3, 8)
    printed = capsys.readouterr().out
    assert "shape        layers 1, query groups 3, heads a group 1, ffn 50" in printed
    assert "not exported model.kv_channels: 8 has no counterpart in GPT2LMHeadModel" in printed


def test_the_next_run_does_not_insist_on_what_is_lost(tmp_path: Path) -> None:
    parent = run_tree(tmp_path, checkpoints={"exportable": True, "max_failed_saves": 5})
    model = ModelConfig.from_tree(parent["model"])
    same = next_run(parent, model, tmp_path / "all")
    assert (same.checkpoints.exportable, same.checkpoints.max_failed_saves) == (True, 5)
    assert next_run(parent | {"lora": {"rank": 4}, "distillation": {"teacher": "x"}}, model, tmp_path / "all") == same
    cut = next_run(parent, model.model_copy(update={"kv_channels": 12}), tmp_path / "cut")
    assert (cut.checkpoints.exportable, cut.checkpoints.max_failed_saves) == (False, 5)


def test_a_run_that_cannot_be_is_refused(tmp_path: Path) -> None:
    parent = run_tree(tmp_path, parallel={"tensor_parallel_size": 4}, launch={"ranks_per_node": 4})
    model = ModelConfig.from_tree(parent["model"]).model_copy(update={"num_attention_heads": 2, "kv_channels": 8})
    with pytest.raises(ConfigError, match=r"--write-config: parallel.tensor_parallel_size \(4\).*; or leave it out"):
        next_run(parent, model, tmp_path / "cut")
    assert file_problems(tmp_path, parent) == [f"--write-config: {tmp_path} exists; remove it, or name another file"]
    assert file_problems(tmp_path / "x", {"name": "a", "model": {}}) == [
        "--write-config: the model was imported without a run config (no batch and training section); "
        "leave it out, or import the model with --config"
    ]


def test_a_huggingface_folder_is_cut_too(
    gpt2_run: tuple[Path, TrainedModel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder, model = gpt2_run
    exported = tmp_path / "exported"
    assert main(["export", str(run_folder), "--to", "hf", "--output", str(exported)]) == 0
    assert prune(exported, tmp_path / "cut", "--ffn", "64") == 0  # with the tokens that came with it
    assert_is_a_slice(tmp_path / "cut", model)
    origin = read_manifest(tmp_path / "cut").origin
    assert origin is not None
    assert origin.sources[0].path == str(exported)
    assert origin.facts["calibration"].startswith("the first 6 sequences of gptdist/calibration.safetensors")
    data = run_folder.parent / "data/code"
    shutil.rmtree(exported / "gptdist")
    (exported / "SHA256SUMS").unlink()
    assert prune(exported, tmp_path / "again", "--ffn", "64") == 2
    assert "imported without any; name a dataset with --data" in capsys.readouterr().err
    assert prune(exported, tmp_path / "again", "--ffn", "64", "--data", str(data)) == 0


def test_held_out_tokens_of_an_export_come_from_each_source_in_turn(tmp_path: Path) -> None:
    rows = [np.full((count, 9), token, np.int32) for count, token in ((3, 5), (1, 6), (2, 7))]
    weights = (0.5, 0.5, 0.0)  # the last is a named set, no part of the mixture
    named = [
        HeldOut(str(ids[0, 0]), weight, ids, np.ones(len(ids), np.int64))
        for ids, weight in zip(rows, weights, strict=True)
    ]
    (tmp_path / "gptdist").mkdir()
    path = tmp_path / BUNDLED_FILE
    path.write_bytes(held_out_bytes(named))
    manifest = trained(seq_length=6).manifest
    found = held_out_tokens(tmp_path, manifest, (), CalibrationOptions(), 3)
    assert found.shape == (3, 6)
    assert found[:, 0].tolist() == [5, 6, 5]
    with pytest.raises(ExportError, match="holds id 6, but the model knows 0 to 5; export the model again"):
        held_out_tokens(tmp_path, trained(vocab_size=6).manifest, (), CalibrationOptions(), 3)


def test_zeros_that_are_to_stay_are_counted_again(gpt2_run: tuple[Path, TrainedModel], tmp_path: Path) -> None:
    run_folder, _ = gpt2_run
    sparse = tmp_path / "sparse"
    assert main(["prune", "weights", str(run_folder), "--output", str(sparse), "--ratio", "0.5"]) == 0
    assert prune(sparse, tmp_path / "cut", "--ffn", "64") == 0
    reader = CheckpointReader(tmp_path / "cut")
    zeros = reader.manifest.progress.zeros
    assert zeros["decoder.layers.0.mlp.linear_fc1.weight"] > 400
    assert zeros == {name: int((reader.weight(name) == 0).sum()) for name in zeros}


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (
            ["--candidates", "2", "--axes", "ffn", "--multiple-of", "3"],
            [
                "--axes: belongs to --target-parameters; name that too, or leave it out",
                "--multiple-of: belongs to --target-parameters; name that too, or leave it out",
                "--candidates: belongs to --target-parameters; name that too, or leave it out",
                "--ffn, --hidden, --heads, … or --target-parameters: none is given; name one",
            ],
        ),
        (
            ["--target-parameters", "0.5", "--ffn", "8"],
            ["--ffn: sizes follow from --target-parameters; name one or the other"],
        ),
        (
            ["--target-parameters", "1.0", "--calibration-length", "1", "--candidates", "0"],
            [
                "--calibration-length: must be at least 2, got 1",
                "--target-parameters: must be a share above 0 and below 1, or a number of parameters, got 1.0",
                "--candidates: must be at least 1, got 0",
            ],
        ),
        (["--ffn", "129"], ["--ffn: must be from 1 to 128, which the model has, got 129"]),
        (
            ["--ffn", "8", "--write-config", "nowhere/x.yaml"],
            ["--write-config: folder 'nowhere' does not exist; make it, or name another"],
        ),
        (["--target-parameters", "0.8", "--axes", "ffn", "--multiple-of", "100"], ["--target-parameters: 27,776: no"]),
    ],
)
def test_bad_input_is_lines_and_status_2(
    options: list[str],
    lines: list[str],
    gpt2_run: tuple[Path, TrainedModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert prune(gpt2_run[0], Path("out"), *options) == 2
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == len(lines), printed
    for found, line in zip(printed, lines, strict=True):
        assert found.startswith(f"gptdist prune: error: {line}"), found
    assert list(tmp_path.iterdir()) == []


def test_held_out_sequences_are_needed(gpt2_run: tuple[Path, TrainedModel], tmp_path: Path) -> None:
    options = structure.StructureOptions(held_out_sequences=0)
    with pytest.raises(ConfigError, match="--held-out-sequences: must be at least 1, got 0"):
        structure.prune_structure(gpt2_run[0], tmp_path / "out", options)


def test_weights_that_are_no_numbers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of a token that no calibration sequence has; what is computed does not show them."""
    name = "embedding.word_embeddings.weight"

    def with_one(**switches: object) -> TrainedModel:
        model = trained(**switches)
        model.weights[name][200, 3] = float("nan")
        return model

    monkeypatch.setattr(exported_models, "trained", with_one)
    run_folder, _ = saved_run(tmp_path, LLAMA)
    assert prune(run_folder, tmp_path / "out", "--ffn", "64") == 2
    assert f"error: {name}: holds numbers that are not finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_output_that_exists_is_refused(gpt2_run: tuple[Path, TrainedModel], tmp_path: Path) -> None:
    options = structure.StructureOptions()
    with pytest.raises(CheckpointError, match="exists; remove it, or choose another folder"):
        structure.prune_structure(gpt2_run[0], tmp_path, options)
