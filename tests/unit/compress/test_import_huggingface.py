"""Folders in the Hugging Face layout become checkpoints that compute the same, or are refused by name."""

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file

from gptdist.checkpoint.manifest import read_manifest
from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.seals import SUMS_NAME
from gptdist.checkpoint.verify import verify
from gptdist.cli.main import main
from gptdist.compress import import_model
from gptdist.compress.hf_files import HuggingFaceWeights
from gptdist.compress.import_model import ImportOptions, import_huggingface
from gptdist.errors import ModelImportError
from gptdist.mesh.groups import destroy_mesh
from gptdist.model.hf_names import from_huggingface
from gptdist.tokenizer.byte import ByteTokenizer
from tests.support.datasets import GPT2, LLAMA, run_tree
from tests.unit.compress.small_models import TrainedModel
from tests.unit.compress.test_export_checkpoint import export, saved_run

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
    _assert_weights(CheckpointReader(out), model)
    origin = read_manifest(out).origin
    assert origin.kind == "huggingface"
    assert [file.name for file in origin.sources[0].files] == ["config.json", "model.safetensors"]


def _assert_weights(reader: CheckpointReader, model: TrainedModel) -> None:
    assert reader.tensor_names == tuple(model.weights)
    assert all(torch.equal(reader.weight(name), tensor) for name, tensor in model.weights.items())


def _config(folder: Path, section: dict[str, Any], **changes: Any) -> str:
    path = folder / "run.yaml"
    YAML(typ="safe", pure=True).dump(run_tree(folder, model=section, **changes), path)
    return str(path)


def test_a_run_config_decides_the_form_of_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """muP's multipliers are in the exported weights, and come out of them again; all commands take the checkpoint."""
    section = {"init": "mup", "mup_base_hidden_size": 16, "mup_base_head_size": 32}
    run_folder, model = saved_run(tmp_path, section)
    assert export(run_folder) == 0
    out = tmp_path / "imported"
    config = _config(tmp_path, section)
    assert main(["import", str(tmp_path / "out"), "--output", str(out), "--config", config]) == 0
    _assert_weights(CheckpointReader(out), model)
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


def _transformers_folder(folder: Path, **changes: Any) -> tuple[Path, Any]:
    """A Llama that transformers made and wrote."""
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=61, hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, rms_norm_eps=1e-6, **changes,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return folder, model


def test_what_transformers_wrote(tmp_path: Path) -> None:
    """In several files, in bf16, with an index; then pickled, then without the prefix of its base model."""
    folder, model = _transformers_folder(tmp_path / "hf")
    model.to(torch.bfloat16).save_pretrained(tmp_path / "sharded", max_shard_size="5KB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 2
    _import(tmp_path / "sharded", tmp_path / "a")
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    for name, names in (("pickled", str), ("baseless", lambda name: name.removeprefix("model."))):
        (tmp_path / name).mkdir()
        shutil.copy(folder / "config.json", tmp_path / name)
        torch.save({names(key): tensor for key, tensor in state.items()}, tmp_path / name / "pytorch_model.bin")
    _import(tmp_path / "pickled", tmp_path / "b")
    _import(tmp_path / "baseless", tmp_path / "c", is_compared=False)
    readers = [CheckpointReader(tmp_path / name) for name in "abc"]
    expected = dict(from_huggingface(_model_of(readers[0]), lambda name: state[name].float()))
    for reader in readers:
        assert all(torch.equal(reader.weight(name), tensor) for name, tensor in expected.items())


def _model_of(reader: CheckpointReader):
    from gptdist.config.model import ModelConfig

    return ModelConfig.from_tree(reader.manifest.config["model"])


def _import(source: Path, output: Path, *, is_compared: bool = True) -> None:
    import_huggingface(source, output, ImportOptions(is_compared=is_compared))


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
    _edit_json(folder / "config.json", architectures=["GPT2LMHeadModel"])
    _import(folder, tmp_path / "a")
    (folder / "model.safetensors").unlink()
    parts = {
        "pytorch_model-00001-of-00002.bin": list(state)[::2],
        "pytorch_model-00002-of-00002.bin": list(state)[1::2],
    }
    for part, names in parts.items():
        torch.save({name: state[name] for name in names}, folder / part)
    names = {name: part for part, held in parts.items() for name in held}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    _import(folder, tmp_path / "b", is_compared=False)
    readers = [CheckpointReader(tmp_path / name) for name in "ab"]
    assert torch.equal(readers[0].weight("embedding.word_embeddings.weight"), state["wte.weight"])
    assert all(torch.equal(*(reader.weight(name) for reader in readers)) for name in readers[0].tensor_names)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names | {"wpe.weight": part}}))
    _refused(folder, r"lacks 'w[tp]e.weight', which the index puts there; take another copy")


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _transformers_folder(tmp_path_factory.mktemp("llama") / "hf")[0]


@pytest.fixture
def folder(llama_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama_folder, tmp_path / "hf"))


def _refused(folder: Path, message: str, output: Path | None = None) -> None:
    output = output or folder.parent / "imported"
    with pytest.raises(ModelImportError, match=message):
        import_huggingface(folder, output, ImportOptions())
    assert not list(folder.parent.glob("*imported*")), "nothing is left behind"


def _edit_json(path: Path, **changes: Any) -> None:
    tree = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in tree.items() if value != "gone"}))
    (path.parent / SUMS_NAME).unlink(missing_ok=True)  # another writer's folder has none


REFUSED = [
    ({"architectures": ["FalconForCausalLM"]}, r"architectures FalconForCausalLM, .*; can be imported: GPT2LMHead"),
    ({"model_type": "mistral"}, r"architectures LlamaForCausalLM, model_type mistral; can be imported"),
    ({"sliding_window": 16}, r"sliding_window: 16 has no counterpart here; only layers that attend to all before"),
    (
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}},
        r"rope_type: yarn .* default and ll",
    ),
    (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1]}},
        r"mrope_section.*known wi",
    ),
    ({"rope_theta": 7.0}, r"rope_theta: 7.0 and 10000.0; give one value"),
    ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, r"rope_parameters .* and rope_scaling .*; give one"),
    ({"attention_bias": True}, r"attention_bias: True with biases elsewhere False has no .*; all linear layers have"),
    ({"hidden_act": "relu"}, r"hidden_act: relu has no counterpart here; only silu can be imported"),
    ({"pretraining_tp": 2}, r"pretraining_tp: 2 has no counterpart"),
    ({"quantization_config": {"bits": 4}}, r"quantization_config: .*bits.* has no counterpart here"),
    ({"auto_map": {"AutoModel": "code.Model"}}, r"auto_map: .* has no counterpart here"),
    ({"logit_scale": 2.0, "alibi": True}, r"alibi, logit_scale: not known here, and may change the function"),
    ({"rms_norm_eps": "gone"}, r"rms_norm_eps: missing; take the config.json that belongs"),
    ({"num_key_value_heads": 3}, r"config.json: as model.num_query_groups \(3\) does not divide"),
    ({"num_attention_heads": "4"}, r"config.json: a value is not of its kind \(.*; take another copy"),
    ({"rope_parameters": "default"}, r"config.json: a value is not of its kind"),
    ({"vocab_size": 60}, r"model.embed_tokens.weight: of shape \(61, 24\), make .*, the config says \(60, 24\)"),
    (
        {"head_dim": 8},
        r"self_attn.v_proj.weight: of shape .*, make .* of shape (None|\(.*\)), the config says \(64, 24\)",
    ),
    ({"num_hidden_layers": 1}, r"holds 9 tensors that config.json has no place for, such as 'model.layers.1"),
    ({"num_hidden_layers": 3}, r"lacks 'model.layers.2.input_layernorm.weight'; take the config.json"),
    ({"tie_word_embeddings": True}, r"'lm_head.weight' is not 'model.embed_tokens.weight', though config.json ties"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[",".join(changes) for changes, _ in REFUSED])
def test_what_has_no_counterpart_is_refused_by_name(folder: Path, changes: dict[str, Any], message: str) -> None:
    _edit_json(folder / "config.json", **changes)
    _refused(folder, message)


def test_gpt2s_own_switches_are_refused_by_name(tmp_path: Path) -> None:
    run_folder, _ = saved_run(tmp_path, {})
    assert export(run_folder) == 0
    out = tmp_path / "out"
    whole = (out / "config.json").read_text()
    for changes, message in (
        ({"activation_function": "relu"}, r"activation_function: relu has no .* use one of gelu_new"),
        ({"scale_attn_weights": False}, r"scale_attn_weights: False has no counterpart here; only True"),
        ({"scale_attn_by_inverse_layer_idx": True}, r"scale_attn_by_inverse_layer_idx: True has no counterpart"),
        ({"layer_norm_epsilon": 0.1}, r"logits differ from transformers' by up to"),
    ):
        _edit_json(out / "config.json", **changes)
        if "layer_norm_epsilon" in changes:  # as if the mapping forgot it
            with pytest.MonkeyPatch.context() as patch:
                theirs = import_model.model_from_huggingface
                patch.setattr(
                    import_model,
                    "model_from_huggingface",
                    lambda *found, theirs=theirs: theirs(*found).model_copy(update={"norm_epsilon": 1e-5}),
                )
                _refused(out, message)
        else:
            _refused(out, message)
        (out / "config.json").write_text(whole)


NEOX_REFUSED = [
    ({"use_parallel_residual": "gone"}, r"use_parallel_residual: True has no counterpart here; only false"),
    ({"attention_bias": False}, r"attention_bias: False has no counterpart here; only true can be imported"),
    ({"hidden_act": "relu"}, r"hidden_act: relu has no counterpart here; use one of gelu_new"),
    ({"rotary_pct": 0.5}, r"rotary_pct: 0.25 and 0.5; give one value"),
    ({"rotary_emb_base": 7.0}, r"rope_theta: 7.0 and 10000.0; give one value"),
]


def test_neox_is_read_as_transformers_wrote_it(tmp_path: Path) -> None:
    """In the words of either version of transformers, and under the name that the output matrix has in memory."""
    torch.manual_seed(5)
    config = transformers.GPTNeoXConfig(
        vocab_size=61, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=32, use_parallel_residual=False, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    folder = tmp_path / "hf"
    transformers.GPTNeoXForCausalLM(config).save_pretrained(folder)
    _import(folder, tmp_path / "a")
    whole = (folder / "config.json").read_text()
    _edit_json(folder / "config.json", rope_parameters="gone", rotary_pct=0.25, rotary_emb_base=10000)
    state = load_file(folder / "model.safetensors")
    renamed = {name.replace("embed_out.", "lm_head."): tensor for name, tensor in state.items()}
    renamed["gpt_neox.layers.0.attention.masked_bias"] = torch.tensor(-1e9)
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    _import(folder, tmp_path / "b", is_compared=False)
    readers = [CheckpointReader(tmp_path / name) for name in "ab"]
    assert _model_of(readers[0]).rotary_fraction == 0.25
    assert _model_of(readers[0]) == _model_of(readers[1])
    assert all(torch.equal(*(reader.weight(name) for reader in readers)) for name in readers[0].tensor_names)
    for changes, message in NEOX_REFUSED:
        (folder / "config.json").write_text(whole)
        _edit_json(folder / "config.json", **changes)
        _refused(folder, message)


def test_another_model_than_the_configs_is_refused(folder: Path, tmp_path: Path, capsys) -> None:
    assert main(["import", str(folder), "--output", str(tmp_path / "x"), "--config", _config(tmp_path, LLAMA)]) == 2
    assert "config.json → the config: model.ffn_hidden_size: 20 → 96; set the key" in capsys.readouterr().err
    assert main(["import", str(folder), "--output", str(tmp_path / "x"), "model.seq_length=4"]) == 2
    assert "model.seq_length=4: there is no config to change" in capsys.readouterr().err
    assert main(["import", str(tmp_path), "--output", str(folder)]) == 2
    assert f"{folder}: exists; remove it, or choose another folder" in capsys.readouterr().err
    assert main(["import", str(tmp_path), "--output", str(tmp_path / "x")]) == 2
    assert "config.json: cannot be read" in capsys.readouterr().err


def test_fewer_positions_are_enough_with_rotary_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder, model = saved_run(tmp_path, LLAMA)
    assert export(run_folder) == 0
    argv = ["import", str(tmp_path / "out"), "--output", str(tmp_path / "imported"), "--config"]
    assert main([*argv, _config(tmp_path, LLAMA), "model.seq_length=64"]) == 2
    assert "config.json → the config: model.seq_length: 32 → 64; set the key as" in capsys.readouterr().err
    assert main([*argv, _config(tmp_path, LLAMA), "model.seq_length=16"]) == 0
    _assert_weights(CheckpointReader(tmp_path / "imported"), model)


def test_a_tokenizer_of_too_many_ids_is_refused(folder: Path, tmp_path: Path, capsys) -> None:
    run_tree(tmp_path)
    argv = ["import", str(folder), "--output", str(tmp_path / "x"), "--tokenizer", str(tmp_path / "data/tokenizer")]
    assert main(argv) == 2
    assert "tokenizer of 257 ids for a model of 61; name the model's with --tokenizer" in capsys.readouterr().err


def test_damaged_files_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    _refused(folder, r"model.safetensors: cannot be opened")
    weights.write_bytes(whole)
    tensors = load_file(weights)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].double()
    save_file(tensors, weights)
    _refused(folder, r"'model.norm.weight' is torch.float64; only fp32, fp16 and bf16 can be imported")
    weights.unlink()
    _refused(folder, r"holds none of model.safetensors, .*; name a folder with weights")


def test_an_index_cannot_lead_out_of_the_folder(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "secret.safetensors")
    names = load_file(folder.parent / "secret.safetensors")
    for path in (
        "../secret.safetensors",
        str(folder.parent / "secret.safetensors"),
        "..",
        "a/../../secret.safetensors",
    ):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, path)}))
        _refused(folder, r"index.json: not an index of weights \(file name '.*' leads out of the folder")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": ["x"]}))
    _refused(folder, r"index.json: not an index of weights")


class Payload:
    """What a pickle would call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_one_tensor_at_a_time_is_in_memory(folder: Path) -> None:
    weights = HuggingFaceWeights(folder)
    tree = json.loads((folder / "config.json").read_text())
    seen: list[weakref.ref[torch.Tensor]] = []
    for _, tensor in import_model._all_weights(import_model.model_from_huggingface(tree, "here"), weights):
        assert not any(earlier() is not None for earlier in seen)
        seen.append(weakref.ref(tensor))
        del tensor
    assert len(seen) == 2 * 6 + 3


def test_code_in_a_pickle_does_not_run(folder: Path) -> None:
    state = dict(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    ran = folder / "ran"
    torch.save(state | {"more": Payload(ran)}, folder / "pytorch_model.bin")
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert ran.exists(), "the payload works"
    ran.unlink()
    _refused(folder, r"pytorch_model.bin: holds .*open, which could run code; convert the weights to safetensors")
    assert not ran.exists()
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    _refused(folder, r"not a file that torch.save of 1.6 or later wrote")
    torch.save([1, 2], folder / "pytorch_model.bin")
    _refused(folder, r"pytorch_model.bin: holds no names with tensors")


def test_gpt2_sections_are_whole(tmp_path: Path) -> None:
    """The model section of an import is one that a run config takes."""
    run_folder, _ = saved_run(tmp_path, {})
    assert export(run_folder) == 0
    import_huggingface(tmp_path / "out", tmp_path / "imported", ImportOptions())
    section = read_manifest(tmp_path / "imported").config["model"]
    assert {key: section[key] for key in GPT2} == GPT2
