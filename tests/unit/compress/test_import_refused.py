"""Folders that cannot become a checkpoint are refused by name, and nothing in them runs."""

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from gptdist.checkpoint.read import CheckpointReader
from gptdist.cli.main import main
from gptdist.compress import import_model
from gptdist.compress.hf_files import HuggingFaceWeights
from tests.support.datasets import LLAMA, run_tree
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


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return transformers_folder(tmp_path_factory.mktemp("llama") / "hf")[0]


@pytest.fixture
def folder(llama_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama_folder, tmp_path / "hf"))


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
    edit_json(folder / "config.json", **changes)
    assert_refused(folder, message)


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
        edit_json(out / "config.json", **changes)
        if "layer_norm_epsilon" in changes:  # as if the mapping forgot it
            with pytest.MonkeyPatch.context() as patch:
                theirs = import_model.model_from_huggingface
                patch.setattr(
                    import_model,
                    "model_from_huggingface",
                    lambda *found, theirs=theirs: theirs(*found).model_copy(update={"norm_epsilon": 1e-5}),
                )
                assert_refused(out, message)
        else:
            assert_refused(out, message)
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
    import_and_compare(folder, tmp_path / "a")
    whole = (folder / "config.json").read_text()
    edit_json(folder / "config.json", rope_parameters="gone", rotary_pct=0.25, rotary_emb_base=10000)
    state = load_file(folder / "model.safetensors")
    renamed = {name.replace("embed_out.", "lm_head."): tensor for name, tensor in state.items()}
    renamed["gpt_neox.layers.0.attention.masked_bias"] = torch.tensor(-1e9)
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    import_and_compare(folder, tmp_path / "b", is_compared=False)
    readers = [CheckpointReader(tmp_path / name) for name in "ab"]
    assert model_of(readers[0]).rotary_fraction == 0.25
    assert model_of(readers[0]) == model_of(readers[1])
    assert all(torch.equal(*(reader.weight(name) for reader in readers)) for name in readers[0].tensor_names)
    for changes, message in NEOX_REFUSED:
        (folder / "config.json").write_text(whole)
        edit_json(folder / "config.json", **changes)
        assert_refused(folder, message)


def test_another_model_than_the_configs_is_refused(folder: Path, tmp_path: Path, capsys) -> None:
    assert (
        main(["import", str(folder), "--output", str(tmp_path / "x"), "--config", written_config(tmp_path, LLAMA)]) == 2
    )
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
    assert main([*argv, written_config(tmp_path, LLAMA), "model.seq_length=64"]) == 2
    assert "config.json → the config: model.seq_length: 32 → 64; set the key as" in capsys.readouterr().err
    assert main([*argv, written_config(tmp_path, LLAMA), "model.seq_length=16"]) == 0
    assert_weights(CheckpointReader(tmp_path / "imported"), model)


def test_a_tokenizer_of_too_many_ids_is_refused(folder: Path, tmp_path: Path, capsys) -> None:
    run_tree(tmp_path)
    argv = ["import", str(folder), "--output", str(tmp_path / "x"), "--tokenizer", str(tmp_path / "data/tokenizer")]
    assert main(argv) == 2
    assert "tokenizer of 257 ids for a model of 61; name the model's with --tokenizer" in capsys.readouterr().err


def test_damaged_files_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    assert_refused(folder, r"model.safetensors: cannot be opened")
    weights.write_bytes(whole)
    tensors = load_file(weights)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].double()
    save_file(tensors, weights)
    assert_refused(folder, r"'model.norm.weight' is torch.float64; only fp32, fp16 and bf16 can be imported")
    weights.unlink()
    assert_refused(folder, r"holds none of model.safetensors, .*; name a folder with weights")


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
        assert_refused(folder, r"index.json: not an index of weights \(file name '.*' leads out of the folder")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": ["x"]}))
    assert_refused(folder, r"index.json: not an index of weights")


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
    assert_refused(folder, r"pytorch_model.bin: holds .*open, which could run code; convert the weights to safetensors")
    assert not ran.exists()
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert_refused(folder, r"not a file that torch.save of 1.6 or later wrote")
    torch.save([1, 2], folder / "pytorch_model.bin")
    assert_refused(folder, r"pytorch_model.bin: holds no names with tensors")
