"""Units with small weights are cut out, by a ratio or a threshold; what is left is a slice that exports."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gptdist.checkpoint.manifest import read_manifest
from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.verify import verify
from gptdist.cli.main import main
from gptdist.compress.prune.units import group_sizes, neuron_sizes
from gptdist.config.load import load_config
from gptdist.config.model import ModelConfig
from gptdist.config.run import RunConfig
from tests.support.datasets import LLAMA
from tests.unit.compress import exported as exported_models
from tests.unit.compress.exported import saved_run
from tests.unit.compress.prune.test_structure import assert_is_a_slice, kept_units
from tests.unit.compress.small_models import TrainedModel, trained


def cut(source: Path, output: Path, *options: str) -> int:
    return main(["prune", "units", str(source), "--output", str(output), *options])


def by_hand(model: TrainedModel, layer: int, kind: str, norm: str) -> list[float]:
    """Sizes from the weights themselves, a unit at a time."""
    config, prefix = model.config, f"decoder.layers.{layer}"
    if kind == "neurons":
        first, second = (model.weight(f"{prefix}.mlp.linear_{name}.weight") for name in ("fc1", "fc2"))
        count = second.shape[1]
        rows = [list(range(unit, first.shape[0], count)) for unit in range(count)]
    else:
        first = model.weight(f"{prefix}.self_attention.linear_qkv.weight")
        second = model.weight(f"{prefix}.self_attention.linear_proj.weight")
        count = config.query_groups
        each = first.shape[0] // count
        rows = [list(range(unit * each, (unit + 1) * each)) for unit in range(count)]
    width = second.shape[1] // count
    sizes = []
    for unit in range(count):
        owned = torch.cat([first[rows[unit]].flatten(), second[:, unit * width : (unit + 1) * width].flatten()])
        sizes.append(float(owned.abs().mean() if norm == "l1" else owned.square().mean().sqrt()))
    return sizes


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("section", [{}, LLAMA], ids=["gpt2", "llama"])
def test_sizes_are_those_of_all_weights_that_a_unit_owns(section: dict[str, Any], norm: str, tmp_path: Path) -> None:
    _, model = saved_run(tmp_path, section)
    for kind, sizes in (("neurons", neuron_sizes), ("groups", group_sizes)):
        found = sizes(model.config, 1, model.weight, norm)
        expected = torch.tensor(by_hand(model, 1, kind, norm), dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("section", [{}, LLAMA], ids=["gpt2", "llama"])
def test_a_ratio_takes_the_smallest_of_each_layer(
    section: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder, model = saved_run(tmp_path, section)
    output, config_file = tmp_path / "cut", tmp_path / "cut.yaml"
    options = ["--ratio", "0.25", "--norm", "l1", "--units", "neurons", "--write-config", str(config_file)]
    assert cut(run_folder, output, *options) == 0
    assert verify(output) == []
    assert_is_a_slice(output, model)
    width = model.config.ffn_size
    for layer in kept_units(output).layers:
        sizes = by_hand(model, layer.layer, "neurons", "l1")
        smallest = sorted(range(width), key=sizes.__getitem__)[: width // 4]
        assert layer.ffn == tuple(sorted(set(range(width)) - set(smallest)))
    child = ModelConfig.from_tree(read_manifest(output).config["model"])
    assert (child.layer_shapes, child.ffn_size) == (None, width - width // 4)
    assert load_config(RunConfig, config_file).model == child
    printed = capsys.readouterr().out
    assert f"layer 0   neurons {width - width // 4} of {width}, groups" in printed
    assert main(["export", str(output), "--to", "hf", "--output", str(tmp_path / "hf"), "--no-baseline"]) == 0
    assert main(["checkpoint", "show", str(output)]) == 0
    assert "method: units, by l1 size of weights" in capsys.readouterr().out


def test_a_threshold_takes_what_is_smaller_wherever_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder, model = saved_run(tmp_path, LLAMA)
    sizes = [by_hand(model, layer, "neurons", "l2") for layer in range(model.config.num_layers)]
    threshold = sorted(size for layer in sizes for size in layer)[11]
    output = tmp_path / "cut"
    assert cut(run_folder, output, "--threshold", repr(threshold), "--units", "neurons") == 0
    kept = kept_units(output).layers
    for layer in kept:
        assert layer.ffn == tuple(unit for unit, size in enumerate(sizes[layer.layer]) if size >= threshold)
    assert sum(len(layer.ffn) for layer in kept) == sum(map(len, sizes)) - 11
    assert_is_a_slice(output, model)
    assert "not exported model.layer_shapes" in capsys.readouterr().out  # layers differ, which no class has
    assert len(CheckpointReader(output).tensor_names) == len(model.weights)


def test_one_unit_of_each_kind_stays(tmp_path: Path) -> None:
    run_folder, model = saved_run(tmp_path, LLAMA)
    assert cut(run_folder, tmp_path / "cut", "--threshold", "1000") == 0
    for layer in kept_units(tmp_path / "cut").layers:
        assert (len(layer.ffn), len(layer.groups), len(layer.heads)) == (1, 1, 2)  # with all of its heads
    assert_is_a_slice(tmp_path / "cut", model)


def test_what_cannot_be_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder, _ = saved_run(tmp_path, {})
    output = tmp_path / "cut"
    assert cut(run_folder, output, "--ratio", "1", "--threshold", "-1", "--units", "layers") == 2
    assert capsys.readouterr().err.splitlines() == [
        "gptdist prune: error: --ratio, --threshold: one of them says how much is to go; give one, not both",
        "gptdist prune: error: --ratio: must be above 0 and below 1, got 1",
        "gptdist prune: error: --threshold: must be above 0, got -1",
        "gptdist prune: error: --units: 'layers' is none; use neurons or groups",
    ]
    assert cut(run_folder, output, "--ratio", "0.5", "--units", ",") == 2
    assert "--units: names none; use neurons or groups" in capsys.readouterr().err
    assert cut(run_folder, output, "--threshold", "1e-9") == 2
    assert "--threshold: no unit is smaller than 1e-09 by its l2 size; raise it" in capsys.readouterr().err
    assert cut(run_folder, output, "--ratio", "0.001") == 2
    assert "--ratio: 0.001 is less than one unit of a layer; raise it" in capsys.readouterr().err
    assert not output.exists()


def test_weights_that_are_no_numbers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "decoder.layers.1.mlp.linear_fc2.weight"

    def with_one(**switches: object) -> TrainedModel:
        model = trained(**switches)
        model.weights[name][3, 5] = float("nan")
        return model

    monkeypatch.setattr(exported_models, "trained", with_one)
    run_folder, _ = saved_run(tmp_path, LLAMA)
    assert cut(run_folder, tmp_path / "out", "--threshold", "1e-9") == 2  # no comparison with it is true
    assert f"error: {name}: holds numbers that are not finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
