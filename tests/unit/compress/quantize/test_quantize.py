"""Quantized folders: how far weights move, what stays as it is, what is refused."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from gptdist.cli.main import main
from gptdist.compress.hf_model import load_huggingface_model
from gptdist.compress.quantize.linear_layout import as_linear_model
from gptdist.compress.quantize.options import QuantizeOptions
from gptdist.compress.quantize.weight_only import int4_weights, linear_layers, require_quantizable
from gptdist.errors import ConfigError, ExportError
from tests.unit.compress.exported import saved_run

HALF_STEP = 0.5 + 1e-4
"""Of a scale: the error of rounding to the nearest, and of fp32."""


def _quantize(folder: Path, dataset: Path, output: Path, *words: str) -> int:
    command = ["quantize", str(folder), "--output", str(output), "--data", str(dataset), "--eval-samples", "4"]
    return main([*command, *words])


def test_int8_rounds_to_the_nearest_and_leaves_embeddings_alone(
    llama_folder: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _quantize(llama_folder, dataset, tmp_path / "int8", "--scheme", "int8") == 0
    assert "14 linear layers in int8" in capsys.readouterr().out
    before, after = load_huggingface_model(llama_folder), load_huggingface_model(tmp_path / "int8")
    rounded = linear_layers(after)
    assert len(rounded) == 14
    for name, layer in linear_layers(before).items():
        weight = rounded[name].weight
        step = layer.weight.abs().amax(dim=1, keepdim=True) / 127.0
        assert bool(((weight.dequantize() - layer.weight).abs() <= HALF_STEP * step).all()), name
        assert weight.qdata.dtype == torch.int8
    assert torch.equal(before.get_input_embeddings().weight, after.get_input_embeddings().weight)
    record = json.loads((tmp_path / "int8/export.json").read_text())
    assert record["parent"]["files"][0]["name"] == "export.json"
    assert record["after"]["perplexity"] == pytest.approx(record["before"]["perplexity"], rel=0.05)
    assert not [file for file in (tmp_path / "int8").rglob("*") if file.suffix in {".bin", ".pt", ".pkl"}]
    assert main(["generate", str(tmp_path / "int8"), "--prompt", "the", "--greedy", "--max-new-tokens", "3"]) == 0


def test_int4_of_gpt2_is_packed_and_its_tied_embedding_stays(
    gpt2_folder: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _quantize(gpt2_folder, dataset, tmp_path / "int4", "--scheme", "int4") == 0
    printed = capsys.readouterr()
    assert "12 linear layers in int4" in printed.out
    assert printed.err == ""
    twin = as_linear_model(load_huggingface_model(gpt2_folder), "here")
    after = load_huggingface_model(tmp_path / "int4")
    found = linear_layers(after)
    for name, layer in linear_layers(twin).items():
        integers, scales = int4_weights(layer, 32)
        expected = integers.float() * scales.repeat_interleave(32, dim=1)
        assert torch.equal(found[name].weight, expected), name
    assert torch.equal(after.get_output_embeddings().weight, load_huggingface_model(gpt2_folder).lm_head.weight)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (gpt2_folder, tmp_path / "int4")]
    assert sizes[1] < 0.65 * sizes[0]

    assert _quantize(tmp_path / "int4", dataset, tmp_path / "again", "--scheme", "int8") == 2
    assert "is quantized already; name the model that it was made of" in capsys.readouterr().err


def test_a_run_is_quantized_with_its_tokenizer(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = saved_run(tmp_path, {})
    assert _quantize(run, dataset, tmp_path / "int8", "--scheme", "int8") == 0
    assert (tmp_path / "int8/tokenizer.json").is_file()
    record = json.loads((tmp_path / "int8/export.json").read_text())
    assert record["weights_bytes_before"] > record["weights_bytes_after"] > 0
    assert record["parent"]["files"][0]["name"] == "manifest.json"
    words = ["--suite", "loss", "--data", str(dataset)]
    assert main(["evaluate", str(tmp_path / "int8"), *words]) == 0
    assert main(["bundle", "verify", str(tmp_path / "int8")]) == 0
    (tmp_path / "int8/README.md").write_text("better")
    assert main(["bundle", "verify", str(tmp_path / "int8")]) == 2


def test_int4_steps_are_a_group_wide() -> None:
    layer = nn.Linear(64, 3, bias=False)
    weight = layer.weight.detach().clone()
    integers, scales = int4_weights(layer, 32)
    assert scales.shape == (3, 2)
    assert int(integers.min()) >= -8
    assert int(integers.max()) <= 7
    error = (integers.float() * scales.repeat_interleave(32, 1) - weight).abs()
    assert bool((error <= HALF_STEP * scales.repeat_interleave(32, 1)).all())


def test_a_gate_that_is_passed_leaves_nothing(
    llama_folder: Path,
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gptdist.compress.quantize import quantize

    measured = iter(({"bits_per_byte": 1.0}, {"bits_per_byte": 1.5}))
    monkeypatch.setattr(quantize, "measure_losses", lambda *_: next(measured))
    words = ["--scheme", "int8", "--max-regress", "bits_per_byte=0.1"]
    assert _quantize(llama_folder, dataset, tmp_path / "out", *words) == 1
    assert "bits_per_byte: 1 became 1.5, worse by 0.5; 0.1 is allowed" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_models_that_cannot_be_quantized_are_refused(llama_folder: Path, gpt2_folder: Path) -> None:
    model = load_huggingface_model(llama_folder)
    with pytest.raises(
        ExportError, match="have 32 inputs, which groups of 64 do not divide; take a smaller --group-size"
    ):
        require_quantizable(model, QuantizeOptions("int4", 64), "here")
    with pytest.raises(
        ExportError, match=r"here: 8 matrices, such as 'transformer.h.0.attn.c_attn.weight', are no lin"
    ):
        require_quantizable(load_huggingface_model(gpt2_folder), QuantizeOptions("int8"), "here")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(ExportError, match=r"'model.layers.1.mlp.up_proj.weight' holds numbers that are not finite"):
        require_quantizable(model, QuantizeOptions("int8"), "here")
    odd = load_huggingface_model(gpt2_folder)
    odd.config.scale_attn_by_inverse_layer_idx = True
    with pytest.raises(ExportError, match="scale_attn_by_inverse_layer_idx is True, for which GPT-2 has no layout"):
        as_linear_model(odd, "here")


def test_options_that_contradict_are_refused_all_at_once(tmp_path: Path) -> None:
    bad = QuantizeOptions("int8", 48, backend="llmcompressor-gptq").problems()
    assert len(bad) == 4
    assert bad[0] == "--group-size: 48 is none of 32, 64, 128; take one"
    assert QuantizeOptions("int3", backend="x").problems()[0] == "--scheme: 'int3' is unknown; take of int8, int4"
    assert QuantizeOptions("int4", python=tmp_path / "no").problems() == [
        "--python: is for --backend llmcompressor-gptq; leave it out",
        f"--python: '{tmp_path / 'no'}' does not exist; change the path",
    ]
    from gptdist.compress.judge.held_out import HeldOutOptions
    from gptdist.compress.quantize.quantize import quantize_model

    with pytest.raises(ConfigError, match="--group-size: 48 is none of"):
        quantize_model(tmp_path, tmp_path / "out", QuantizeOptions("int4", 48), held_out=HeldOutOptions())


def test_a_backend_that_fails_says_so_in_a_line(llama_folder: Path, tmp_path: Path) -> None:
    import sys

    import numpy as np

    from gptdist.compress.quantize.own_environment import write_gptq

    (tmp_path / "source").mkdir()  # holds no model, so that the script fails wherever it can be imported
    with pytest.raises(ExportError, match=r"GPTQ ended with status 1, saying .*; try the environment by itself"):
        write_gptq(Path(sys.executable), tmp_path / "source", tmp_path / "out", np.zeros((1, 4)), 32)
    assert not list((tmp_path / "source").iterdir())
