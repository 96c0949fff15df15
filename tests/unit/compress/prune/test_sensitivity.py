"""Losses of a model with one part of one layer pruned are those of the model so pruned."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gptdist.cli.main import main
from gptdist.compress.calibration import CalibrationOptions
from gptdist.compress.prune import sensitivity
from gptdist.compress.prune.importance import ImportanceOptions, measure_importance
from gptdist.compress.prune.measure import mean_loss, sliced_model
from gptdist.compress.prune.sensitivity import Point, Sensitivity, SensitivityOptions
from gptdist.compress.prune.sensitivity_plot import plot_sensitivity
from gptdist.compress.prune.shape import Shape, chosen_units
from gptdist.compress.prune.slicing import everything
from gptdist.errors import ConfigError
from tests.support.datasets import LLAMA
from tests.unit.compress.exported import saved_run
from tests.unit.compress.prune.test_slicing import SECTIONS
from tests.unit.compress.small_models import TrainedModel, megatron_model, trained

ROWS = np.random.default_rng(5).integers(0, 257, (3, 24))
NAMES = {"qkv": "self_attention.linear_qkv", "fc2": "mlp.linear_fc2"}


def measured(model: TrainedModel, options: SensitivityOptions) -> tuple[list[Point], float]:
    """Points, and the loss of the model afterwards."""
    with megatron_model(model) as (network, _):
        importance = measure_importance(network, model.config, ROWS, options.importance)
        pruner = sensitivity._Pruner(network, model.config, importance, options)
        return list(sensitivity._points(pruner, ROWS, ROWS)), mean_loss(network, ROWS)


def loss_of(model: TrainedModel) -> float:
    with megatron_model(model) as (network, _):
        return mean_loss(network, ROWS)


@pytest.mark.parametrize("part", NAMES)
def test_single_weights_are_zeroed_by_magnitude(part: str) -> None:
    """Queries, keys and values each lose the same share."""
    model = trained(**SECTIONS["llama"])
    points, after = measured(model, SensitivityOptions(parts=(part,), ratios=(0.5,)))
    assert after == loss_of(model)
    assert [(point.layer, point.part, point.ratio) for point in points] == [
        (0, part, 0.5),
        (1, part, 0.5),
        (2, part, 0.5),
    ]
    name = f"decoder.layers.1.{NAMES[part]}.weight"
    pruned = model.weights[name].clone()
    whole = pruned.view(2, 4, 8, -1) if part == "qkv" else pruned
    for one in (whole[:, :2], whole[:, 2:3], whole[:, 3:]) if part == "qkv" else (whole,):
        size = one.abs().flatten().sort().values[one.numel() // 2]
        one.masked_fill_(one.abs() < size, 0.0)
    expected = loss_of(dataclasses.replace(model, weights=model.weights | {name: pruned}))
    assert points[1].loss == pytest.approx(expected, abs=1e-6)
    assert abs(expected - after) > 1e-4


def test_units_are_silenced_as_if_they_were_cut() -> None:
    model = trained(**SECTIONS["llama"])
    options = SensitivityOptions(parts=("neurons", "heads"), ratios=(0.1, 0.5, 0.9))
    points, _ = measured(model, options)
    assert {point.ratio for point in points if point.part == "heads"} == {0.5, 1.0}  # of four heads
    assert {point.ratio for point in points if point.part == "neurons"} == {0.1, 0.5, 0.9}
    (found,) = [point.loss for point in points if (point.layer, point.part, point.ratio) == (2, "neurons", 0.5)]
    with megatron_model(model) as (network, mesh):
        importance = measure_importance(network, model.config, ROWS, ImportanceOptions())
        cut, whole = chosen_units(model.config, importance, Shape(ffn=20)), everything(model.config)
        kept = dataclasses.replace(whole, layers=(*whole.layers[:2], cut.layers[2]))
        assert mean_loss(sliced_model(network, model.config, kept, mesh), ROWS) == pytest.approx(found, abs=1e-5)


def test_wanda_looks_at_what_a_layer_sees_of_the_whole_model() -> None:
    model = trained(**SECTIONS["gpt2"])
    points, after = measured(model, SensitivityOptions(parts=("fc1",), ratios=(0.75,), method="wanda"))
    assert after == loss_of(model)
    seen = []
    with megatron_model(model) as (network, _):
        network.decoder.layers[1].mlp.linear_fc1.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        tokens = torch.from_numpy(ROWS)
        network(tokens, torch.arange(24).expand_as(tokens), None)
    name = "decoder.layers.1.mlp.linear_fc1.weight"
    pruned = model.weights[name].clone()
    scores = pruned.abs() * seen[0].flatten(0, 1).norm(dim=0)
    pruned[scores < scores.sort(dim=1).values[:, 24:25]] = 0.0
    assert (pruned == 0).sum(1).tolist() == [24] * 128
    expected = loss_of(dataclasses.replace(model, weights=model.weights | {name: pruned}))
    assert points[1].loss == pytest.approx(expected, abs=1e-6)


def test_sparsegpt_costs_less_than_magnitude() -> None:
    """On the very tokens that it looked at."""
    model = trained(**SECTIONS["gpt2"])
    by_method = {}
    for method in ("magnitude", "sparsegpt"):
        options = SensitivityOptions(parts=("proj",), ratios=(0.75,), method=method)
        by_method[method], after = measured(model, options)
        assert after == loss_of(model)
    changes = {method: [abs(point.loss - after) for point in points] for method, points in by_method.items()}
    assert sum(changes["sparsegpt"]) < sum(changes["magnitude"])


@pytest.fixture
def found() -> Sensitivity:
    points = [
        Point(layer, part, ratio, 2.0 + ratio * (layer + 1))
        for layer in (0, 2)
        for part in ("fc1", "heads")
        for ratio in (0.5, 0.25)
    ]
    return Sensitivity("run", 3, "wanda", "some", 100, 3, 2.0, [2.5, 2.75, 3.0], points)


def test_layers_are_ranked_by_the_mean_over_their_parts(found: Sensitivity) -> None:
    assert found.parts == ["fc1", "heads"]
    assert found.curve(2, "fc1") == [(0.0, 2.0), (0.25, 2.75), (0.5, 3.5)]
    assert found.increase(0, "heads", 0.45) == pytest.approx(0.5)
    assert found.increase(1, "heads", 0.5) is None
    assert found.most_sensitive(0.5) == [2, 0, 1]
    assert sensitivity.ratio_to_show((0.25, 0.6, 0.9)) == 0.6


def test_picture_shows_a_line_a_layer(found: Sensitivity) -> None:
    figure = plot_sensitivity(found)
    fc1, heads, layers = (axes for axes in figure.axes if axes.axison)
    assert [line.get_label() for line in fc1.lines[:2]] == ["0", "2"]
    np.testing.assert_allclose(fc1.lines[1].get_ydata(), [2.0, 2.75, 3.5])
    assert fc1.get_ylim() == heads.get_ylim()
    assert layers.get_title() == "whole layer left out"
    many = dataclasses.replace(found, num_layers=20, without_layer=[2.1] * 20)
    assert "layer" in [axes.get_ylabel() for axes in plot_sensitivity(many).axes]  # the scale of colours


def test_command_writes_report_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder, _ = saved_run(tmp_path, LLAMA)
    few = ["--calibration-sequences", "2", "--held-out-sequences", "2", "--device", "cpu", "--parts", "proj,heads"]
    output = tmp_path / "sensitivity"
    assert main(["prune", "sensitivity", str(run_folder), "--output", str(output), "--ratios", "0.5", *few]) == 0
    report = json.loads((output / "report.json").read_text())
    assert (report["format"], report["step"], report["num_layers"]) == ("gptdist-sensitivity", 30, 2)
    assert len(report["points"]) == 4
    assert (output / "sensitivity.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert " layer      proj     heads  left out" in printed
    assert f"{report['without_layer'][0] - report['loss']:+.4f}" in printed


@pytest.mark.parametrize(
    ("options", "problems"),
    [
        (
            {"parts": ("fc3",), "ratios": (0.0, 1.0), "held_out_sequences": 0},
            [
                "--held-out-sequences: must be at least 1, got 0",
                "--ratios: must be above 0 and below 1, got 0",
                "--ratios: must be above 0 and below 1, got 1",
                "--parts: fc3 is none of qkv, proj, fc1, fc2, neurons, heads; name some of these",
            ],
        ),
        (
            {"parts": (), "ratios": (), "calibration": CalibrationOptions(0)},
            [
                "--calibration-sequences: must be at least 1, got 0",
                "--ratios: names none; name some, such as 0.25,0.5",
                "--parts: names none; name some of qkv, proj, fc1, fc2, neurons, heads",
            ],
        ),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], problems: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        sensitivity.measure_sensitivity(tmp_path, tmp_path / "out", SensitivityOptions(**options))
    assert list(caught.value.problems) == problems


def test_bad_input_is_lines_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    output = str(tmp_path / "file")
    assert main(["prune", "sensitivity", "nowhere", "--output", output, "--ratios", "0.5,half"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "gptdist prune: error: --ratios: 'half' is no number; give shares such as 0.25,0.5",
        f"gptdist prune: error: --output: '{output}' is a file; name a folder",
    ]
