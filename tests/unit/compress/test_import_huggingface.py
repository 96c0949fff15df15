"""Folders in the Hugging Face layout become checkpoints that compute the same, or are refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from gptdist.checkpoint.manifest import read_manifest
from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.verify import verify
from gptdist.cli.main import main
from gptdist.compress.import_model import ImportOptions, import_huggingface
from gptdist.mesh.groups import destroy_mesh
from gptdist.model.hf_names import from_huggingface
from gptdist.tokenizer.byte import ByteTokenizer
from tests.support.datasets import GPT2, LLAMA
from tests.unit.compress.exported import export, saved_run
from tests.unit.compress.imported import (
    assert_refused,
    assert_weights,
    edit_json,
    import_and_compare,
    model_of,
    transformers_folder,
    written_config,
)

QWEN3 = LLAMA | {"qk_norm": True, "tie_embeddings": True, "kv_channels": 12}
SECTIONS = {
    "gpt2": {},
    "gpt2-untied-gelu": {"activation": "gelu", "tie_embeddings": False, "ffn_hidden_size": 40},
    "llama": LLAMA,
    "llama-biases-scaled": LLAMA
    | {"add_bias": True, "num_query_groups": 4, "rope_base": 5e5}
    | {"rope_scaling": {"factor": 4.0, "original_seq_length": 16}},
    "qwen3": QWEN3,
    "qwen2": LLAMA | {"add_qkv_bias": True, "kv_channels": 12},
    "neox": {"position_embedding": "rope", "rotary_fraction": 0.5, "rope_base": 5e5, "activation": "gelu"},
    "neox-untied-scaled": {
        "position_embedding": "rope",
        "tie_embeddings": False,
        "rope_scaling": {"factor": 4.0, "original_seq_length": 16},
    },
    "mixtral": LLAMA | {"moe": {"num_experts": 4}},
    "qwen3-moe": QWEN3 | {"moe": {"num_experts": 3, "every_n_layers": 2, "ffn_hidden_size": 20}},
}


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_export_and_import_give_the_same_bits(
    section: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder, model = saved_run(tmp_path, section)
    assert export(run_folder) == 0
    out = tmp_path / "imported"
    assert main(["import", str(tmp_path / "out"), "--output", str(out)]) == 0
    assert "parity     largest logit difference to transformers" in capsys.readouterr().out
    assert verify(out) == []
    assert_weights(CheckpointReader(out), model)
    origin = read_manifest(out).origin
    assert origin.kind == "huggingface"
    assert [file.name for file in origin.sources[0].files] == ["config.json", "model.safetensors"]


def test_a_run_config_decides_the_form_of_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """muP's multipliers are in the exported weights, and come out of them again; all commands take the checkpoint."""
    section = {"init": "mup", "mup_base_hidden_size": 16, "mup_base_head_size": 32}
    run_folder, model = saved_run(tmp_path, section)
    assert export(run_folder) == 0
    out = tmp_path / "imported"
    config = written_config(tmp_path, section)
    assert main(["import", str(tmp_path / "out"), "--output", str(out), "--config", config]) == 0
    assert_weights(CheckpointReader(out), model)
    assert read_manifest(out).tokenizer_fingerprint == ByteTokenizer.fingerprint
    capsys.readouterr()
    losses = []
    for path in (run_folder, out):
        assert main(["evaluate", str(path), "--json"]) == 0
        destroy_mesh()
        losses.append(json.loads(capsys.readouterr().out)["loss"])
    assert losses[0] == losses[1]
    assert main(["export", str(out), "--to", "hf", "--output", str(tmp_path / "again")]) == 0
    again = (tmp_path / "again/model.safetensors").read_bytes()
    assert again == (tmp_path / "out/model.safetensors").read_bytes()
    assert main(["generate", str(out), "--prompt", "the", "--max-new-tokens", "2"]) == 0


def test_without_a_run_config_commands_say_what_they_miss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder, _ = saved_run(tmp_path, {})
    assert export(run_folder) == 0
    texts = []
    assert main(["import", str(tmp_path / "out"), "--output", str(tmp_path / "named")]) == 0
    for path in (run_folder, tmp_path / "named"):
        capsys.readouterr()
        assert main(["generate", str(path), "--prompt", "the loss", "--seed", "1"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1], "the tokenizer is the one beside the weights"
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tmp_path / "out" / name, bare)
    out = str(tmp_path / "imported")
    assert main(["import", str(bare), "--output", out]) == 0
    assert "tokenizer  none (" in capsys.readouterr().out
    to_hf = ["export", out, "--to", "hf", "--output", str(tmp_path / "again")]
    tokenizer, data = str(tmp_path / "data/tokenizer"), str(tmp_path / "data/prose")
    for argv, message in (
        (["evaluate", out], "imported without a run config, so it names no data; import it with --config"),
        (to_hf, "data.tokenizer: the checkpoint was imported without one; name it with --tokenizer"),
        ([*to_hf, "--tokenizer", tokenizer], "the checkpoint was imported without any; name a dataset with --data"),
    ):
        assert main(argv) == 2
        assert message in capsys.readouterr().err
    assert main([*to_hf, "--tokenizer", tokenizer, "--data", data]) == 0


def test_what_transformers_wrote(tmp_path: Path) -> None:
    """In several files, in bf16, with an index; then pickled, then without the prefix of its base model."""
    folder, model = transformers_folder(tmp_path / "hf")
    model.to(torch.bfloat16).save_pretrained(tmp_path / "sharded", max_shard_size="5KB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 2
    import_and_compare(tmp_path / "sharded", tmp_path / "a")
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    for name, names in (("pickled", str), ("baseless", lambda name: name.removeprefix("model."))):
        (tmp_path / name).mkdir()
        shutil.copy(folder / "config.json", tmp_path / name)
        torch.save({names(key): tensor for key, tensor in state.items()}, tmp_path / name / "pytorch_model.bin")
    import_and_compare(tmp_path / "pickled", tmp_path / "b")
    import_and_compare(tmp_path / "baseless", tmp_path / "c", is_compared=False)
    readers = [CheckpointReader(tmp_path / name) for name in "abc"]
    expected = dict(from_huggingface(model_of(readers[0]), lambda name: state[name].float()))
    for reader in readers:
        assert all(torch.equal(reader.weight(name), tensor) for name, tensor in expected.items())


def test_gpt2_as_it_was_first_published(tmp_path: Path) -> None:
    """Names without ``transformer.``, masks among the weights, tied embeddings stored once; then in pickled parts."""
    torch.manual_seed(4)
    config = transformers.GPT2Config(vocab_size=61, n_positions=16, n_embd=24, n_layer=2, n_head=4)
    folder = tmp_path / "hf"
    transformers.GPT2Model(config).save_pretrained(folder)
    state = load_file(folder / "model.safetensors")
    assert "wte.weight" in state
    state |= {f"h.{layer}.attn.bias": torch.ones(1, 1, 16, 16).tril() for layer in range(2)}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    edit_json(folder / "config.json", architectures=["GPT2LMHeadModel"])
    import_and_compare(folder, tmp_path / "a")
    (folder / "model.safetensors").unlink()
    parts = {
        "pytorch_model-00001-of-00002.bin": list(state)[::2],
        "pytorch_model-00002-of-00002.bin": list(state)[1::2],
    }
    for part, names in parts.items():
        torch.save({name: state[name] for name in names}, folder / part)
    names = {name: part for part, held in parts.items() for name in held}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    import_and_compare(folder, tmp_path / "b", is_compared=False)
    readers = [CheckpointReader(tmp_path / name) for name in "ab"]
    assert torch.equal(readers[0].weight("embedding.word_embeddings.weight"), state["wte.weight"])
    assert all(torch.equal(*(reader.weight(name) for reader in readers)) for name in readers[0].tensor_names)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names | {"wpe.weight": part}}))
    assert_refused(folder, r"lacks 'w[tp]e.weight', which the index puts there; take another copy")


def test_gpt2_sections_are_whole(tmp_path: Path) -> None:
    """The model section of an import is one that a run config takes."""
    run_folder, _ = saved_run(tmp_path, {})
    assert export(run_folder) == 0
    import_huggingface(tmp_path / "out", tmp_path / "imported", ImportOptions())
    section = read_manifest(tmp_path / "imported").config["model"]
    assert {key: section[key] for key in GPT2} == GPT2
