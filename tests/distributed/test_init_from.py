"""A run begins with a checkpoint's weights on any layout, and goes on without that checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from gptdist.checkpoint.average import average
from gptdist.checkpoint.find import step_folders
from gptdist.checkpoint.read import CheckpointReader
from gptdist.cli.main import main
from gptdist.telemetry.ledger import read_json_lines
from tests.support.datasets import GPT2, LLAMA, run_tree
from tests.support.jobs import open_run, train_steps
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks
from tests.support.step_folders import rewrite_manifest

LAYOUTS = [
    TestedLayout(1, 0, 1),
    TestedLayout(2, 1, 1),
    TestedLayout(2, 3, 2),
    TestedLayout(2, 1, 1, pipeline_parallel_size=2),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints of a run, and their mean."""
    folder = tmp_path_factory.mktemp("init")
    tree = run_tree(folder, run_dir=str(folder / "before"))
    run_ranks(1, train_steps, tree, 2, 2)
    run_ranks(1, train_steps, tree, 4, 4)
    average(step_folders(folder / "before/checkpoints"), folder / "mean")
    return folder


def _tree(folder: Path, name: str, layout: TestedLayout = LAYOUTS[0], init_from: str | None = "mean", **changes):
    training = {} if init_from is None else {"training": {"init_from": str(folder / init_from)}}
    return run_tree(folder, run_dir=str(folder / name), **layout.sections(), **training, **changes)


def begin_and_save(tree) -> None:
    from gptdist.train.loop import save

    save(open_run(tree), is_final=True)


@pytest.mark.parametrize(
    ("layout", "precision"), [*((layout, "fp32") for layout in LAYOUTS), (LAYOUTS[1], "bf16")], ids=str
)
def test_weights_are_those_of_the_checkpoint(folder: Path, layout: TestedLayout, precision: str) -> None:
    tree = _tree(folder, f"begin-{layout}-{precision}", layout)
    tree["training"]["precision"] = precision
    run_ranks(layout.world_size, begin_and_save, tree)
    run = Path(tree["run_dir"])
    expected, found = CheckpointReader(folder / "mean"), CheckpointReader(run / "checkpoints/step_00000000")
    assert sorted(found.tensor_names) == sorted(expected.tensor_names)
    for name in expected.tensor_names:
        assert torch.equal(found.weight(name), expected.weight(name)), name
        entry = found.entry(name)
        for moment in ("exp_avg", "exp_avg_sq"):
            assert not found.block(name, moment, outer=(0, entry.outer), along=(0, entry.length)).any(), name
    progress = found.manifest.progress
    assert (progress.step, progress.consumed_samples, progress.optimizer_step) == (0, 0, 0)
    assert progress.initial_weights.path == str(folder / "mean")
    assert found.manifest.origin is None
    events = {event["event"]: event for event in read_json_lines(run / "ledger.jsonl")}
    assert events["initial_weights"]["path"] == str(folder / "mean")
    assert events["initial_weights"]["files"] == [file.tree() for file in progress.initial_weights.files]


def test_training_goes_on_without_the_checkpoint(folder: Path) -> None:
    shutil.copytree(folder / "mean", folder / "lent")
    whole = run_ranks(1, train_steps, _tree(folder, "whole"), 4, 2)[0]
    tree = _tree(folder, "torn", init_from="lent")
    begun = run_ranks(1, train_steps, tree, 2, 2)[0]
    shutil.rmtree(folder / "lent")
    resumed = run_ranks(1, train_steps, tree, 4, 4)[0]
    assert begun + resumed == whole, "floats are compared bit for bit"
    source = CheckpointReader(folder / "torn/checkpoints/step_00000004").manifest.progress.initial_weights
    assert source.path == str(folder / "lent"), "a later checkpoint still says where the weights came from"
    other = run_ranks(1, train_steps, _tree(folder, "drawn", init_from=None), 1)[0]
    assert abs(other[0][1] - whole[0][1]) > 0.01, "the seed's weights would give another loss"


def _refused(tree, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        run_ranks(1, train_steps, tree, 1)


def test_other_models_are_refused_by_name(folder: Path) -> None:
    for changes, message in (
        ({"num_layers": 3}, r"model.num_layers: 2 → 3; its weights would be another model, set the key as it was"),
        ({"seq_length": 16}, r"training.init_from: .*mean: model.seq_length: 32 → 16"),
        ({"activation": "gelu"}, r"model.activation: gelu_tanh → gelu"),
    ):
        _refused(_tree(folder, "refused", model=GPT2 | changes), message)
    _refused(_tree(folder, "refused", init_from="nowhere"), r"nowhere: holds no checkpoint; name a run folder")


def test_longer_texts_with_rotary_positions_are_told_not_refused(folder: Path) -> None:
    tree = _tree(folder, "short", init_from=None, model=LLAMA)
    run_ranks(1, train_steps, tree, 1, 1)
    longer = _tree(folder, "long", init_from="short", model=LLAMA | {"seq_length": 64, "rope_base": 5e5})
    assert run_ranks(1, train_steps, longer, 1)[0][0][0] == 1


def test_tampered_and_damaged_ones_are_refused(folder: Path) -> None:
    bad = folder / "bad"
    for change, message in (
        (lambda tree: tree.update(tokenizer_fingerprint="1" * 64), r"trained with tokenizer 1{12}, data.tokenizer is"),
        (lambda tree: tree["files"][0].update(name="../weights.safetensors"), r"leads out of the folder"),
        (lambda tree: tree["files"][0].update(sha256="2" * 64), r"the manifest says 2{12}; the checkpoint is damaged"),
    ):
        shutil.copytree(folder / "mean", bad)
        tree = json.loads((bad / "manifest.json").read_text())
        change(tree)
        rewrite_manifest(bad, tree)
        _refused(_tree(folder, "refused", init_from="bad"), message)
        shutil.rmtree(bad)


def test_weights_alone_are_no_checkpoint_to_resume(folder: Path) -> None:
    tree = _tree(folder, "resumed", init_from=None)
    (folder / "resumed/checkpoints").mkdir(parents=True)
    shutil.copytree(folder / "mean", folder / "resumed/checkpoints/step_00000004")
    _refused(
        tree, r"holds weights alone \(average\), no moments to go on with; begin a run with it: training.init_from"
    )


def test_launch_refuses_before_any_rank_starts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ruamel.yaml import YAML

    config = folder / "run.yaml"
    YAML(typ="safe", pure=True).dump(_tree(folder, "launched", model=GPT2 | {"num_layers": 3}), config)
    assert main(["launch", "local", str(config)]) == 2
    assert "model.num_layers: 2 → 3; its weights would be another model" in capsys.readouterr().err
    assert not (folder / "launched").exists()
