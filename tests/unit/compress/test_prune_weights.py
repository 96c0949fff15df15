"""Zeros by magnitude and Wanda against torch's and torchao's of the exported model, and what a checkpoint tells."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import Tensor, nn
from torch.nn.utils.prune import l1_unstructured

from gptdist.checkpoint.read import CheckpointReader
from gptdist.cli.main import main
from gptdist.compress.calibration import CalibrationOptions
from gptdist.compress.hf_model import load_huggingface_model
from gptdist.compress.prune.calibration_tokens import CALIBRATION_FILE, calibration_tokens
from gptdist.compress.prune.layerwise import LayerInputs
from gptdist.compress.prune.magnitude import MagnitudePruner
from gptdist.compress.prune.options import WeightOptions
from gptdist.compress.prune.weights import prune_weights
from gptdist.errors import CheckpointError, ConfigError
from gptdist.model.experts import GroupedLinear
from gptdist.model.hf_names import to_huggingface
from gptdist.model.parameters import is_hidden_matrix
from tests.support.datasets import GPT2, LLAMA, MODERN, MOE
from tests.unit.compress.exported import export, saved_run
from tests.unit.compress.small_models import TrainedModel, megatron_model, trained

CALIBRATION = CalibrationOptions(sequences=24, length=32, seed=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainedModel, Path]:
    """A run with a checkpoint, its model, and its export."""
    folder = tmp_path_factory.mktemp("prune")
    run, model = saved_run(folder, LLAMA)
    assert export(run) == 0
    return run, model, folder / "out"


Prune = Callable[..., dict[str, Tensor]]


@pytest.fixture
def prune(made: tuple[Path, TrainedModel, Path], tmp_path: Path) -> Prune:
    """Prune the run, and return the tensors of the result."""

    def pruned(**options: Any) -> dict[str, Tensor]:
        output = tmp_path / "-".join(map(str, options.values()))
        prune_weights(made[0], output, WeightOptions(calibration=CALIBRATION, **options))
        reader = CheckpointReader(output)
        return {name: reader.weight(name) for name in reader.tensor_names}

    return pruned


def _linears(network: nn.Module) -> dict[str, nn.Linear]:
    found = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    return {name: module for name, module in found.items() if name != "lm_head"}


def _parts(model: TrainedModel, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pruned matrices as the export has them: queries, keys and values apart."""
    return {
        part.removesuffix(".weight"): tensor
        for name, whole in found.items()
        if is_hidden_matrix(name)
        for part, tensor in to_huggingface(model.config, name, whole)
    }


def test_magnitude_is_torchs_of_each_matrix(made, prune: Prune) -> None:
    _, model, exported = made
    found = _parts(model, prune(ratio=0.4))
    linears = _linears(load_huggingface_model(exported))
    assert set(found) == set(linears)
    assert len(found) == 14
    for name, linear in linears.items():
        l1_unstructured(linear, "weight", amount=0.4)
        assert torch.equal(found[name], linear.weight), name


def test_a_threshold_makes_smaller_ones_zero_and_touches_nothing_else(made, prune: Prune) -> None:
    _, model, _ = made
    for name, weight in prune(threshold=0.125).items():
        small = weight.new_zeros(weight.shape, dtype=torch.bool)
        if is_hidden_matrix(name):
            small = model.weights[name].abs() < 0.125
            assert 0.2 < small.float().mean() < 0.4  # a third of a normal distribution
        assert torch.equal(weight, model.weights[name].masked_fill(small, 0.0)), name


@pytest.mark.parametrize("digits", [None, 1], ids=["different", "many are equal"])
def test_globally_the_smallest_of_all_go_and_exactly_so_many(digits: int | None, tmp_path: Path) -> None:
    model = trained(**LLAMA)
    if digits is not None:
        model.weights = {name: weight.round(decimals=digits) for name, weight in model.weights.items()}
    names = [name for name in model.weights if is_hidden_matrix(name)]
    options = WeightOptions(ratio=0.3, scope="global")
    pruner = MagnitudePruner(names, lambda name: model.weights[name].clone(), model.config, options)
    before = torch.cat([model.weights[name].flatten() for name in names])
    for _ in range(2):  # asked for again, it is the same
        found = torch.cat([pruner.pruned(name).flatten() for name in names])
        gone = before.abs().argsort(stable=True)[: round(0.3 * before.numel())]
        expected = before.index_fill(0, gone, 0.0)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_a_pattern_holds_in_every_group(method: str, made, prune: Prune) -> None:
    for name, weight in _parts(made[1], prune(method=method, pattern="3:4")).items():
        assert ((weight != 0).view(-1, 4).sum(1) == 3).all(), name


def _torchao_masks(network: nn.Module, tokens: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What stays by torchao's Wanda at 2:4, and the lengths of inputs that it saw, of every linear.

    torchao 0.18 multiplies by the square of an input's length, where the paper has the length: its root is taken before
    it chooses. Without a pattern it compares within the whole matrix and not within rows, so that there its lengths are
    used and not its masks.
    """
    from torchao.sparsity.wanda import WandaSparsifier

    sparsifier = WandaSparsifier(semi_structured_block_size=4)
    names = list(_linears(network))
    sparsifier.prepare(network, [{"tensor_fqn": f"{name}.weight"} for name in names])
    with torch.no_grad():
        network(tokens)
    modules = {name: network.get_submodule(name) for name in names}
    norms = {name: module.activation_post_process.norm.sqrt_().clone() for name, module in modules.items()}
    sparsifier.step()
    return {name: module.parametrizations.weight[0].mask.bool() for name, module in modules.items()}, norms


def test_wanda_is_torchaos_with_inputs_of_pruned_layers(made, prune: Prune) -> None:
    run, model, exported = made
    manifest = CheckpointReader(run / "checkpoints/step_00000030").manifest
    tokens = torch.from_numpy(calibration_tokens(run, manifest, (), CALIBRATION)[0])
    weights = {name: linear.weight.detach() for name, linear in _linears(load_huggingface_model(exported)).items()}
    patterned = _parts(model, prune(method="wanda", pattern="2:4"))
    unpatterned = _parts(model, prune(method="wanda", ratio=0.25))
    for found, of_rows in ((patterned, None), (unpatterned, 8)):
        network = load_huggingface_model(exported)
        for layer in range(2):
            masks, norms = _torchao_masks(network, tokens)
            network = load_huggingface_model(exported)
            for name, linear in _linears(network).items():
                if int(name.split(".")[2]) > layer:
                    continue
                if int(name.split(".")[2]) == layer:
                    scores = weights[name].abs() * norms[name]
                    kept = masks[name]
                    if of_rows is not None:
                        least = scores.kthvalue(scores.shape[1] // 4, dim=1, keepdim=True)[0]
                        kept = scores > least
                    assert torch.equal(found[name], weights[name] * kept), f"{name} at {of_rows}"
                linear.weight.data.copy_(found[name])


@pytest.mark.parametrize("section", [GPT2, LLAMA, MODERN, MOE], ids=["gpt2", "llama", "modern", "moe"])
def test_layer_after_layer_is_the_model(section: dict[str, Any]) -> None:
    with megatron_model(trained(**section)) as (network, _), torch.no_grad():
        tokens = torch.randint(0, 257, (3, 32), generator=torch.Generator().manual_seed(0))
        inputs = LayerInputs.of(network, tokens)
        for layer in network.decoder.layers:
            inputs.through(layer)
        head = network.shared_embedding_or_output_weight() if network.share_embeddings_and_output_weights else None
        hidden = torch.cat([network.decoder.final_layernorm(part) for part in inputs.hidden], dim=1)
        found = network.output_layer(hidden, weight=head)[0].transpose(0, 1)[..., :257]
        expected = network(tokens, torch.arange(32).expand_as(tokens), None)
    torch.testing.assert_close(found, expected)


def test_every_expert_sees_the_tokens_that_come_to_it(tmp_path: Path) -> None:
    run, model = saved_run(tmp_path, MOE)
    options = WeightOptions(method="wanda", ratio=0.5, skip_layers="0,2", calibration=CALIBRATION)
    prune_weights(run, tmp_path / "pruned", options)
    reader = CheckpointReader(tmp_path / "pruned")
    tokens = torch.from_numpy(calibration_tokens(run, reader.manifest, (), CALIBRATION)[0])
    seen: dict[str, list[Tensor]] = {}

    def note(module: nn.Module, arguments: tuple[Tensor, list[int]]) -> None:
        name = "fc1" if module.weight.shape[-1] == 32 else "fc2"
        seen[name] = [part.clone() for part in arguments[0].split(arguments[1])]

    with megatron_model(model) as (network, _), torch.no_grad():
        for module in network.modules():
            if isinstance(module, GroupedLinear):
                module.register_forward_pre_hook(note)
        network(tokens, torch.arange(32).expand_as(tokens), None)
    for part, inputs in seen.items():
        name = f"decoder.layers.1.mlp.experts.linear_{part}.weight"
        for before, after, x in zip(model.weights[name], reader.weight(name), inputs, strict=True):
            scores = before.abs() * x.norm(dim=0)
            assert torch.equal(after, before.where(scores > scores.median(dim=1, keepdim=True)[0], 0.0)), name
    for name in ("decoder.layers.1.mlp.router.weight", "decoder.layers.0.mlp.linear_fc1.weight"):
        assert torch.equal(reader.weight(name), model.weights[name]), name


def test_an_exported_folder_gives_the_same_and_its_own_tokens(made, tmp_path: Path, capsys) -> None:
    run, _, exported = made
    outputs = [tmp_path / "of-run", tmp_path / "of-folder"]
    options = ["--method", "wanda", "--ratio", "0.5", "--calibration-sequences", "9", "--calibration-length", "30"]
    assert main(["prune", "weights", str(run), "--output", str(outputs[0]), *options]) == 0
    assert "calibration  9 sequences of 30 tokens of the training mixture, seed 0" in capsys.readouterr().out
    manifest = CheckpointReader(outputs[0]).manifest
    assert manifest.origin.sources[0].path == str(run / "checkpoints/step_00000030")
    ids = calibration_tokens(run, manifest, (), CalibrationOptions(9, 30, 0))[0]
    path = exported / CALIBRATION_FILE
    path.parent.mkdir(exist_ok=True)
    save_file({"input_ids": np.pad(ids, ((0, 3), (0, 9))).astype(np.int32)}, path)
    assert main(["prune", "weights", str(exported), "--output", str(outputs[1]), *options]) == 0
    printed = capsys.readouterr().out
    assert f"the first 9 sequences of {CALIBRATION_FILE}, 30 tokens each" in printed
    assert "zeros        50.00% of 24,576 weights of 8 matrices" in printed
    of_run, of_folder = map(CheckpointReader, outputs)
    for name in of_run.tensor_names:
        assert torch.equal(of_run.weight(name) == 0, of_folder.weight(name) == 0), name
    assert of_folder.manifest.origin.sources[0].path == str(exported)

    for wrong, message in (
        ({"other": ids}, r"calibration.safetensors: holds no input_ids .*; export again, or name a dataset"),
        ({"input_ids": ids + 300}, r"input_ids of shape \[9, 30\] are no sequences of ids 0 to 256; export again"),
    ):
        save_file(wrong, path)
        assert main(["prune", "weights", str(exported), "--output", str(tmp_path / "no"), *options]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert re.search(message, error)


def test_show_tells_by_what_and_how_many(made, tmp_path: Path, capsys) -> None:
    output = tmp_path / "pruned"
    command = ["prune", "weights", str(made[0]), "--output", str(output), "--pattern", "2:4", "--skip-layers", "1"]
    assert main(command) == 0
    capsys.readouterr()
    assert main(["checkpoint", "show", str(output)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "weights alone pruned of" in lines
    for fact in ("method: magnitude", "ratio: 0.5", "pattern: 2:4", "skipped layers: 1"):
        assert f"{'':<14}{fact}" in lines
    assert "zeros         6,144 (50.0%) of 12,288 values in 4 pruned matrices" in lines


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (["--ratio", "0"], ["--ratio: must be above 0 and below 1, got 0; 0.5 makes half"]),
        (["--ratio", "1"], ["--ratio: must be above 0 and below 1, got 1"]),
        (["--ratio", "nan"], ["--ratio: must be above 0 and below 1, got nan"]),
        ([], ["--ratio: how much is to become zero? give one of"]),
        (
            ["--threshold", "-1", "--ratio", "2", "--skip-layers", "a-b", "--calibration-length", "0"],
            [
                "--threshold: contradicts --ratio; give one",
                "--ratio: must be above 0 and below 1, got 2",
                "--threshold: must be above 0, got -1",
                "--skip-layers: 'a-b' is no list of layers; write it like 0,10-11",
                "--calibration-length: must be at least 2, got 0",
            ],
        ),
        (
            ["--method", "wanda", "--threshold", "1"],
            ["--threshold: is for magnitude, wanda takes --ratio or --pattern"],
        ),
        (["--pattern", "4:2"], ["--pattern: must be N:M with N above 0 and below M, such as 2:4, got '4:2'"]),
        (["--pattern", "2:4", "--ratio", "0.6"], ["--ratio: 0.6 contradicts --pattern 2:4, by which 0.5 become zero"]),
        (["--pattern", "2:4", "--scope", "global"], ["--scope: 2:4 is a rule for every few weights; use layer"]),
        (["--threshold", "1", "--scope", "global"], ["--scope: a threshold compares with itself alone"]),
        (
            ["--method", "sparsegpt", "--ratio", "0.5", "--scope", "global"],
            ["--scope: sparsegpt compares within rows and blocks; use layer, or --method magnitude"],
        ),
        (
            ["--pattern", "2:5"],
            [
                "--pattern: 2:5 needs rows of a multiple of 5, those of decoder.layers.0.self_attention.linear_qkv."
                "weight have 32 weights; skip the layer or take another pattern",
                "--pattern: 2:5 needs rows of a multiple of 5, those of decoder.layers.0.mlp.linear_fc2.weight have 96",
            ],
        ),
        (
            ["--ratio", "0.5", "--skip-layers", "1-3"],
            ["--skip-layers: layer 2 of a model of 2, whose last one is 1", "--skip-layers: layer 3 of"],
        ),
        (["--ratio", "0.5", "--skip-layers", "0-1"], ["--skip-layers: '0-1' leaves no matrix to prune"]),
        (["--threshold", "1e-12"], ["--threshold: 1e-12 of 24,576 weights: no weight is smaller: raise it"]),
        (["--threshold", "9"], ["--threshold: 9 of 24,576 weights: all weights are smaller: lower it"]),
    ],
)
def test_what_cannot_be_is_refused_at_once(made, tmp_path: Path, capsys, options, messages) -> None:
    assert main(["prune", "weights", str(made[0]), "--output", str(tmp_path / "no"), *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(messages)
    for line, message in zip(lines, messages, strict=True):
        assert line.startswith(f"gptdist prune: error: {message}")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Path]:
    """A run in whose first feed-forward matrix one weight has the value."""

    def run(value: float) -> Path:
        def changed(**switches: object) -> TrainedModel:
            model = trained(**switches)
            model.weights["decoder.layers.0.mlp.linear_fc1.weight"][3, 3] = value
            return model

        monkeypatch.setattr("tests.unit.compress.exported.trained", changed)
        return saved_run(tmp_path, LLAMA)[0]

    return run


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_weights_that_are_not_finite_are_refused(method: str, broken, tmp_path: Path) -> None:
    options = WeightOptions(method=method, ratio=0.5, skip_layers="1", calibration=CALIBRATION)
    with pytest.raises(CheckpointError, match=r"mlp.linear_fc1.weight: holds numbers that are not finite; take"):
        prune_weights(broken(float("nan")), tmp_path / "pruned", options)
    assert not (tmp_path / "pruned").exists()


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_activations_that_are_not_finite_are_refused(method: str, broken, tmp_path: Path) -> None:
    options = WeightOptions(method=method, ratio=0.5, calibration=CALIBRATION)
    with pytest.raises(
        CheckpointError, match=r"mlp.linear_fc2.weight: its inputs of the calibration sequences are not fi"
    ):
        prune_weights(broken(3e38), tmp_path / "pruned", options)


def test_an_expert_without_tokens_is_refused(tmp_path: Path) -> None:
    run, _ = saved_run(tmp_path, MOE)
    options = WeightOptions(method="wanda", ratio=0.5, calibration=CalibrationOptions(1, 2, 0))
    with pytest.raises(
        ConfigError, match=r"sequences: no token came to \d of 4 experts of decoder.layers.1.mlp.experts.li"
    ):
        prune_weights(run, tmp_path / "pruned", options)


def test_an_output_that_exists_is_refused(made, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="exists; remove it, or choose another folder"):
        prune_weights(made[0], tmp_path, WeightOptions(ratio=0.5))
