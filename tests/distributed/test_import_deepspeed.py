"""What DeepSpeed's own ``save_checkpoint`` writes of a run is read without its pickles running."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.verify import verify
from gptdist.cli.main import main
from gptdist.compress.deepspeed_files import CLASSES
from gptdist.compress.pickled import allowing, load_pickled
from gptdist.device.device import cpu_has_fp16
from gptdist.errors import ModelImportError
from tests.support.datasets import GPT2, LLAMA, MOE, run_tree
from tests.support.jobs import open_run, train_steps
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks


def save_both(tree: dict[str, Any]) -> None:
    """Train two steps, and save as this framework does and as DeepSpeed does."""
    from gptdist.train.loop import save, train_step

    run = open_run(tree)
    for _ in range(2):
        run.state.advance(train_step(run))
    save(run, is_final=True)
    run.engine.deepspeed.save_checkpoint(str(run.config.folder / "theirs"))


ODD = GPT2 | {"hidden_size": 33, "num_attention_heads": 3}
"""Sizes that two ranks cannot share evenly."""

NEEDS_FP16 = pytest.mark.skipif(not cpu_has_fp16(), reason="this processor does not compute in fp16")
CASES = [
    (TestedLayout(1, 0, 1), "fp32", GPT2),
    (TestedLayout(2, 1, 1), "bf16", GPT2),
    (TestedLayout(1, 1, 1), "fp16", GPT2),
    (TestedLayout(2, 1, 2), "fp32", LLAMA),
    (TestedLayout(2, 2, 1), "fp32", MOE),
    (TestedLayout(2, 3, 1), "bf16", ODD),
    (TestedLayout(4, 3, 2), "fp32", GPT2),
]


def _saved(folder: Path, layout: TestedLayout, precision: str, model: dict[str, Any]) -> Path:
    """Return a run's config; beside it ``run/theirs`` is what DeepSpeed saved."""
    tree = run_tree(folder, model=model, training={"precision": precision}, **layout.sections())
    run_ranks(layout.world_size, save_both, tree)
    return _written(folder, tree)


def _written(folder: Path, tree: dict[str, Any]) -> Path:
    YAML(typ="safe", pure=True).dump(tree, folder / "run.yaml")
    return folder / "run.yaml"


def _import(config: Path, output: str = "imported", source: str = "run/theirs", *more: str) -> int:
    folder = config.parent
    argv = ["import", str(folder / source), "--output", str(folder / output), "--config", str(config), *more]
    return main(argv)


@pytest.mark.parametrize(
    ("layout", "precision", "model"),
    [pytest.param(*case, id=f"{case[0]}-{case[1]}", marks=[NEEDS_FP16] if case[1] == "fp16" else []) for case in CASES],
)
def test_weights_are_those_that_we_save(tmp_path: Path, layout: TestedLayout, precision: str, model) -> None:
    config = _saved(tmp_path, layout, precision, model)
    assert _import(config) == 0
    assert verify(tmp_path / "imported") == []
    ours, found = CheckpointReader(tmp_path / "run/checkpoints/step_00000002"), CheckpointReader(tmp_path / "imported")
    assert sorted(found.tensor_names) == sorted(ours.tensor_names)
    for name in ours.tensor_names:
        assert torch.equal(found.weight(name), ours.weight(name)), name
    manifest = found.manifest
    assert (manifest.step, manifest.origin.kind) == (2, "deepspeed")
    assert manifest.tokenizer_fingerprint == ours.manifest.tokenizer_fingerprint
    suffix = "model_states.pt"
    tensor_ranks = sum(file.name.endswith(suffix) for file in manifest.origin.sources[0].files)
    assert tensor_ranks == layout.tensor_parallel_size


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    _saved(folder, TestedLayout(2, 1, 2), "fp32", GPT2)
    return folder


@pytest.fixture
def saved(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil; the folder of the run's config."""
    shutil.copytree(made / "run/theirs", tmp_path / "run/theirs")
    shutil.copytree(made / "data", tmp_path / "data")
    return _written(tmp_path, run_tree(tmp_path))


def test_a_run_begins_with_them(saved: Path, made: Path) -> None:
    assert _import(saved) == 0
    folder = saved.parent
    losses = []
    for name, source in (("a", folder / "imported"), ("b", made / "run")):
        tree = run_tree(folder, run_dir=str(folder / name), training={"init_from": str(source)})
        losses.append(run_ranks(1, train_steps, tree, 2)[0])
    assert losses[0] == losses[1]


class Payload:
    """What a pickle would call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("which", ["mp_rank_01_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"])
def test_code_in_a_pickle_does_not_run(saved: Path, which: str, capsys: pytest.CaptureFixture[str]) -> None:
    path, ran = saved.parent / "run/theirs/global_step2" / which, saved.parent / "ran"
    with allowing(CLASSES):
        state = torch.load(path, weights_only=True)
    torch.save(state | {"more": Payload(ran)}, path)
    torch.load(path, weights_only=False)
    assert ran.exists(), "the payload works"
    ran.unlink()
    assert _import(saved) == 2
    error = capsys.readouterr().err
    assert f"{which}: holds io.open, which could run code; convert the weights to safetensors" in error
    assert not ran.exists()
    assert not (saved.parent / "imported").exists()


def test_only_these_classes_are_built(tmp_path: Path) -> None:
    torch.save({"a": torch.nn.Linear(1, 1)}, tmp_path / "a.pt")
    with pytest.raises(ModelImportError, match=r"a.pt: holds .*torch.nn.modules.linear.Linear.*, which could run code"):
        load_pickled(tmp_path / "a.pt", CLASSES)
    torch.save({"a": CLASSES[1](16.0)}, tmp_path / "b.pt")
    assert load_pickled(tmp_path / "b.pt", CLASSES)["a"].cur_scale == 16.0
    with pytest.raises(ModelImportError, match="LossScaler, which could run code"):
        load_pickled(tmp_path / "b.pt")


def test_what_is_missing_or_damaged_is_named(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = saved.parent / "run/theirs"
    tag = theirs / "global_step2"

    def refused(message: str, source: str = "run/theirs") -> None:
        assert _import(saved, source=source) == 2
        assert message in capsys.readouterr().err
        assert not (saved.parent / "imported").exists()

    for name, message in (
        (
            "zero_pp_rank_0_mp_rank_01_optim_states.pt",
            "optim_states.pt of ZeRO rank 0 of model-parallel rank 1 is missi",
        ),
        ("mp_rank_01_model_states.pt", "the model_states.pt of model-parallel rank 1 is missing; take a whole copy"),
    ):
        (tag / name).rename(tag / "away")
        refused(message)
        (tag / "away").rename(tag / name)
    name = "mp_rank_00_model_states.pt"
    whole = (tag / name).read_bytes()
    (tag / name).write_bytes(whole[: len(whole) // 2])
    refused(f"{name}: not a file that torch.save of 1.6 or later wrote")
    torch.save({"module": {}}, tag / name)
    refused("global_step2: not as DeepSpeed 0.19 writes its files (KeyError('mp_world_size'))")
    (tag / name).write_bytes(whole)
    state = torch.load(tag / name, weights_only=True)
    torch.save(state | {"param_shapes": state["param_shapes"][:1]}, tag / name)
    refused("model-parallel rank 0 lacks 'decoder.final_layernorm.bias'")
    (tag / name).write_bytes(whole)
    for text in ("../global_step2", "/etc", ".."):
        (theirs / "latest").write_text(text)
        refused(f"latest: names no folder (file name '{text}' leads out of the folder")
    (theirs / "latest").write_text("global_step3")
    refused("global_step3: no such folder; name one that DeepSpeed saved to")
    refused("config.json: cannot be read", source="data")
    assert _import(saved, "imported", "run/theirs/global_step2") == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.num_layers=3", "rank 0 lacks 'decoder.layers.2.input_layernorm.bias' other than"),
        ("model.num_layers=1", "rank 0 holds 'decoder.layers.1.input_layernorm.bias' other than"),
        (
            "model.ffn_hidden_size=64",
            "'decoder.layers.0.mlp.linear_fc1.weight' of model-parallel rank 0 is [64, 32] in 2",
        ),
        (
            "model.vocab_size=600",
            "'embedding.word_embeddings.weight' of model-parallel rank 0 is [256, 32] in 8192 val",
        ),
    ],
)
def test_another_model_is_refused(saved: Path, change: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _import(saved, "imported", "run/theirs", change) == 2
    assert message in capsys.readouterr().err


def test_ranks_that_drifted_apart_are_refused(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved.parent / "run/theirs/global_step2/zero_pp_rank_0_mp_rank_01_optim_states.pt"
    with allowing(CLASSES):
        state = torch.load(path, weights_only=True)
        state["optimizer_state_dict"]["single_partition_of_fp32_groups"][1].data.add_(1.0)
        torch.save(state, path)
    assert _import(saved) == 2
    assert "is not the same on model-parallel ranks 0 and 1" in capsys.readouterr().err


def test_without_a_config_nothing_says_what_the_model_is(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(saved.parent / "run/theirs"), "--output", str(saved.parent / "x")]) == 2
    assert "DeepSpeed's files do not describe the model; name the run's config: --config" in capsys.readouterr().err


def test_stages_of_a_pipeline_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = _saved(tmp_path, TestedLayout(2, 1, 1, pipeline_parallel_size=2), "fp32", GPT2)
    assert _import(config) == 2
    assert "(stages of a pipeline cannot be imported)" in capsys.readouterr().err
