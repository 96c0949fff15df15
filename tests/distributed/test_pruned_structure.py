"""A model that was cut to half trains on, in the layout of the run it comes from."""

from pathlib import Path

import pytest
import torch

from gptdist.checkpoint.read import CheckpointReader
from gptdist.cli.main import main
from gptdist.config.load import load_config
from gptdist.config.run import RunConfig
from tests.support.datasets import LLAMA
from tests.support.jobs import train_steps
from tests.support.layouts import TestedLayout
from tests.support.ranks import run_ranks
from tests.unit.compress.exported import saved_run

FEW = ("--calibration-sequences", "6", "--held-out-sequences", "4")


def test_a_cut_model_trains_on(tmp_path: Path) -> None:
    run_folder, _ = saved_run(tmp_path, LLAMA)
    output, config_file = tmp_path / "half", tmp_path / "half.yaml"
    options = ["--target-parameters", "0.6", "--axes", "ffn,hidden", "--write-config", str(config_file), *FEW]
    assert main(["prune", "structure", str(run_folder), "--output", str(output), *options]) == 0

    layout = TestedLayout(2, 1, 2)
    seen = {}
    for name, ranks, sections in (("one", 1, {}), ("two", 2, layout.sections())):
        tree = load_config(RunConfig, config_file).tree() | {"run_dir": str(tmp_path / name)} | sections
        seen[name] = run_ranks(ranks, train_steps, tree, 2, 2)[0]
    for one, two in zip(seen["one"], seen["two"], strict=True):
        assert two == pytest.approx(one, rel=1e-5)
    before, after = CheckpointReader(output), CheckpointReader(tmp_path / "two/checkpoints/step_00000002")
    assert sorted(after.tensor_names) == sorted(before.tensor_names)
    changed = [name for name in before.tensor_names if not torch.equal(after.weight(name), before.weight(name))]
    assert len(changed) == len(before.tensor_names)
    assert after.manifest.progress.initial_weights.path == str(output)
