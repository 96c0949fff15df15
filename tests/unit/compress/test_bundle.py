"""What goes with an exported model: each part is what it says, the folder is proved whole, and nothing else is read."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from gptdist.cli.main import main
from gptdist.compress.bundle.activations import activation_statistics
from gptdist.compress.bundle.data_card import data_card
from gptdist.compress.bundle.held_out import held_out_windows, read_held_out
from gptdist.compress.bundle.provenance import without_secrets
from gptdist.compress.bundle.sums import file_sha256
from gptdist.compress.calibration import CalibrationOptions, calibration_sample
from gptdist.compress.hf_model import build_huggingface_model
from gptdist.config.run import RunConfig
from gptdist.config.source import read_tree
from gptdist.errors import BundleError, ExportError
from gptdist.mesh.groups import destroy_mesh
from gptdist.tokenizer.byte import ByteTokenizer
from tests.support.datasets import run_tree, write_dataset
from tests.unit.compress.exported import lines
from tests.unit.compress.small_models import llama, trained

PARTS = {"run_config.yaml", "calibration.safetensors", "held_out.safetensors", "baseline.json", "provenance.json"}


def test_every_file_has_its_hash(bundled_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = bundled_run.parent / "out"
    assert {path.name for path in (out / "gptdist").iterdir()} == PARTS | {"activations.safetensors"}
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=out, capture_output=True, text=True, check=True
    )
    assert checked.stdout.count(": OK") == 14
    assert main(["bundle", "verify", str(out)]) == 0
    assert capsys.readouterr().out == f"whole  {out}\n"


def test_calibration_is_the_training_mixtures_sample(bundled_run: Path) -> None:
    tree, out = read_tree(bundled_run.parent / "out/gptdist/run_config.yaml"), bundled_run.parent / "out/gptdist"
    with safe_open(out / "calibration.safetensors", framework="numpy") as opened:
        ids, metadata = opened.get_tensor("input_ids"), opened.metadata()
    assert ids.dtype == np.int32
    expected = calibration_sample(tree, (), CalibrationOptions(6, 32, 0), vocab_size=257)
    assert np.array_equal(ids, expected)
    assert (metadata["split"], metadata["seed"]) == ("train", "0")
    facts = json.loads((out / "provenance.json").read_text())["parts"]["calibration"]
    assert (facts["split"], facts["sequences"], facts["disjoint_from_validation"]) == ("train", 6, True)
    assert facts["shards"]["prose"]["train"]["shards"] == 2


def test_shards_of_both_splits_at_once_are_refused(
    bundled_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "same")
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["splits"]["train"] = manifest["splits"]["validation"]
    (data / "manifest.json").write_text(json.dumps(manifest))
    words = ("export", bundled_run, "--to", "hf", "--output", tmp_path / "x", "--data", data, "--calibration")
    (line,) = lines(capsys, *words)
    assert "same: shard " in line
    assert "is in both splits, so calibration tokens may be validation's; prepare the data again" in line


def test_the_baseline_is_what_evaluate_finds(bundled_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = bundled_run.parent / "out"
    found = json.loads((out / "gptdist/baseline.json").read_text())
    capsys.readouterr()
    assert main(["evaluate", str(bundled_run), "--json"]) == 0
    destroy_mesh()
    expected = json.loads(capsys.readouterr().out)
    for name in ("loss", "bits_per_byte"):
        assert found[name] == pytest.approx(expected[name], abs=1e-5)
    for ours, theirs in zip(found["sources"], expected["sources"], strict=True):
        assert {name: ours[name] for name in ("name", "tokens", "text_bytes")} == {
            name: theirs[name] for name in ("name", "tokens", "text_bytes")
        }
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
    card = (out / "README.md").read_text()
    assert f"| mixture | {found['loss']:.4f} | {found['bits_per_byte']:.4f} |" in card
    assert found["generations"]["counts"]["unsuitable_words"] >= 0
    assert f"| unsuitable words | {found['generations']['counts']['unsuitable_words']:,} |" in card


def test_held_out_windows_are_read_as_written(bundled_run: Path) -> None:
    tree = read_tree(bundled_run.parent / "out/gptdist/run_config.yaml")
    found = read_held_out(bundled_run.parent / "out/gptdist/held_out.safetensors")
    expected = held_out_windows(tree, (), ByteTokenizer(), seq_length=32)
    assert [(one.name, one.weight) for one in found] == [("prose", 0.7), ("code", 0.3)]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.ids.shape == (5, 33)
        assert np.array_equal(ours.ids, theirs.ids)
        ends = (ours.ids[:, 1:] == 256).sum(axis=1)
        assert np.array_equal(ours.text_bytes, 32 - ends), "a byte each, and none for the end of a document"
    with pytest.raises(
        BundleError, match=r"calibration.safetensors: holds no held-out windows .*; export the model again"
    ):
        read_held_out(bundled_run.parent / "out/gptdist/calibration.safetensors")


def test_chosen_data_too_short_or_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    tree = run_tree(tmp_path)
    prose = tmp_path / "data/prose"
    with pytest.raises(ExportError, match=r"prose: its validation split has \d+ tokens, a window has 99999 \+ 1; name"):
        held_out_windows(tree, [prose], ByteTokenizer(), seq_length=99999)

    class Few(ByteTokenizer):
        def token_byte_lengths(self) -> np.ndarray:
            return np.ones(100, dtype=np.int64)

    with pytest.raises(ExportError, match=r"prose: holds id 256, but the tokenizer knows 0 to 99; take data"):
        held_out_windows(tree, [prose], Few(), seq_length=32)
    names = [one.name for one in held_out_windows(tree, [prose, prose], ByteTokenizer(), seq_length=32)]
    assert names == ["prose", str(prose)]


def test_the_config_can_be_run_again_and_has_no_secrets(bundled_run: Path) -> None:
    tree = read_tree(bundled_run.parent / "out/gptdist/run_config.yaml")
    assert RunConfig.from_tree(tree) == RunConfig.from_tree(run_tree(bundled_run.parent))
    secret = {
        "name": "x",
        "model": {"num_layers": 1},
        "checkpoints": {"protection": {"key_path": "/keys/mine"}, "remote": {"url": "s3://key:word@host/b"}},
        "data": {"sources": [{"path": Path("a"), "url": "https://me:word@host/path?token=word#word"}]},
    }
    found = without_secrets(secret)
    assert found["data"]["sources"][0] == {"path": "a", "url": "https://host/path"}
    assert "word" not in json.dumps(found)
    assert "keys" not in json.dumps(found)


def test_provenance_names_the_checkpoint(bundled_run: Path) -> None:
    found = json.loads((bundled_run.parent / "out/gptdist/provenance.json").read_text())
    manifest = bundled_run / "checkpoints/step_00000030/manifest.json"
    assert found["checkpoint"] == {"name": "step_00000030", "step": 30, "manifest_sha256": file_sha256(manifest)}
    assert found["versions"]["torch"] == torch.__version__
    assert found["left_out"] == {}


def test_activation_statistics_by_hand(bundled_run: Path) -> None:
    """From transformers' own hidden states: the first layer's input, its norm, and what layers change."""
    out = bundled_run.parent / "out"
    found = load_file(out / "gptdist/activations.safetensors")
    ids = load_file(out / "gptdist/calibration.safetensors")["input_ids"].long()
    model = AutoModelForCausalLM.from_pretrained(out)
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states
        into = model.transformer.h[0].ln_1(states[0])
        torch.testing.assert_close(found["mean_abs/transformer.h.0.attn.c_attn"], into.abs().mean((0, 1)))
        torch.testing.assert_close(found["l2/transformer.h.0.attn.c_attn"], into.square().sum((0, 1)).sqrt())
        change = 1 - torch.nn.functional.cosine_similarity(states[0], states[1], dim=-1)
        assert float(found["block_influence"][0]) == pytest.approx(float(change.mean()), abs=1e-6)
        seen: list[torch.Tensor] = []
        handle = model.transformer.h[1].attn.c_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        model(ids)
        handle.remove()
    torch.testing.assert_close(found["heads/1"], seen[0].unflatten(-1, (4, 8)).norm(dim=-1).mean((0, 1)))
    torch.testing.assert_close(found["ffn/1"], found["mean_abs/transformer.h.1.mlp.c_proj"])
    assert found["hidden"].shape == (32,)
    assert found["block_influence"].shape == (2,)


@pytest.mark.parametrize(
    ("make", "heads"), [(llama, 4), (lambda: trained(position_embedding="rope"), 4)], ids=["llama", "neox"]
)
def test_activation_statistics_of_other_families(make: Any, heads: int) -> None:
    model = make()
    network = build_huggingface_model(model.config, model, eod_id=256)
    found = activation_statistics(network, np.arange(48).reshape(2, 24))
    assert found["heads/1"].shape == (heads,)
    assert found["ffn/1"].shape == (model.config.ffn_size,)
    assert found["block_influence"].shape == (2,)
    assert float(found["hidden"].min()) > 0


def test_what_is_not_there_is_left_out_and_told(
    bundled_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "held")
    manifest = json.loads((data / "manifest.json").read_text())
    del manifest["splits"]["train"]
    (data / "manifest.json").write_text(json.dumps(manifest))
    words = [
        "export",
        str(bundled_run),
        "--to",
        "hf",
        "--output",
        str(tmp_path / "out"),
        "--data",
        str(data),
        "--no-generations",
    ]
    capsys.readouterr()
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "left out    calibration: " in printed
    assert "has no split 'train'" in printed
    assert "left out    generations: not asked for" in printed
    left_out = json.loads((tmp_path / "out/export.json").read_text())["left_out"]
    assert set(left_out) == {"calibration", "generations", "activations"}
    assert [one.name for one in read_held_out(tmp_path / "out/gptdist/held_out.safetensors")] == ["held"]
    (line,) = lines(capsys, *words, "--overwrite", "--calibration")
    assert "has no split 'train'" in line
    (line,) = lines(capsys, *words, "--overwrite", "--activations")
    assert "has no split 'train'" in line, "statistics are of calibration tokens"


def test_what_contradicts_itself_is_refused_at_once(
    bundled_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("export", bundled_run, "--to", "hf", "--output", tmp_path / "out")
    found = lines(capsys, *words, "--no-calibration", "--calibration-sequences", "0", "--calibration-length", "1")
    assert found == [
        "--calibration-sequences: must be at least 1, got 0",
        "--calibration-length: must be at least 2, got 1",
        "--no-calibration: contradicts --calibration-…; leave one out",
    ]
    (line,) = lines(capsys, *words, "--no-check", "--baseline")
    assert line == "baseline: needs the exported model, which was not loaded; leave out --no-check"


def test_without_the_check_the_rest_is_written(
    bundled_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["export", str(bundled_run), "--to", "hf", "--output", str(tmp_path / "out"), "--no-check"]) == 0
    assert "parity      not compared" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out/gptdist").iterdir()} == PARTS - {"baseline.json"}
    same = (tmp_path / "out/model.safetensors").read_bytes() == (
        bundled_run.parent / "out/model.safetensors"
    ).read_bytes()
    assert same
    assert "was not measured" in (tmp_path / "out/README.md").read_text()


def test_the_data_card_tells_what_the_preparation_knows(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "web")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["config"] = {"pii": {"emails": True}, "sources": [{"name": "web", "licence": "CC0 | 1.0"}]}
    manifest["funnel"] = {
        "dedup": {"documents_in": 8, "documents_out": 5, "dropped": {"exact": 3}},
        "read": {"documents_in": 0, "documents_out": 8, "dropped": {}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "account").mkdir()
    summary = {"sources": [{"name": "web", "counts": {"pii.email": 7, "decontaminate.x": 1}}]}
    (tmp_path / "account/summary.json").write_text(json.dumps(summary))
    card = data_card("run", [("web", folder, 3.0), ("gone", tmp_path / "home/gone", 1.0)])
    splits = manifest["splits"]
    assert f"| web | 0.75 | CC0 \\| 1.0 | {splits['train']['tokens']:,} | 300 |" in card
    assert "| gone | 0.25 | not known |" in card
    assert card.index("| web | read | - | 8 | none |") < card.index("| web | dedup | 8 | 5 | exact 3 |")
    assert "- web: replaced by placeholders: email 7" in card
    assert "- gone: not known" in card
    assert str(tmp_path) not in card, "paths are of this machine"
