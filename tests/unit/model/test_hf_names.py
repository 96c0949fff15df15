"""Names, shapes and settings of the Hugging Face layout, without transformers."""

import subprocess
import sys

import pytest
import torch

from gptdist.config.exportable import export_problems, huggingface_class
from gptdist.config.model import ModelConfig
from gptdist.errors import ExportError, ModelImportError
from gptdist.model.arithmetic import num_parameters
from gptdist.model.hf_config import generation_config, huggingface_config
from gptdist.model.hf_names import from_huggingface, huggingface_shapes, logical_shapes, to_huggingface

SIZES = {"num_layers": 2, "hidden_size": 24, "num_attention_heads": 4, "seq_length": 16, "vocab_size": 50}
GPT2 = ModelConfig(**SIZES)
LLAMA = ModelConfig(
    **SIZES,
    num_query_groups=2,
    position_embedding="rope",
    normalization="rmsnorm",
    activation="swiglu",
    add_bias=False,
)


def changed(config: ModelConfig, **values: object) -> ModelConfig:
    return ModelConfig(**(config.tree() | values))


NEOX = changed(GPT2, position_embedding="rope")
CONFIGS = {
    "gpt2": GPT2,
    "gpt2-untied-gelu": changed(GPT2, tie_embeddings=False, activation="gelu", ffn_hidden_size=40),
    "llama-gqa": LLAMA,
    "llama-mha-untied": changed(LLAMA, num_query_groups=None, tie_embeddings=False),
    "llama-scaled": changed(LLAMA, rope_scaling={"factor": 8.0}),
    "gpt2-mup": changed(GPT2, init="mup", mup_base_hidden_size=12, mup_base_head_size=24),
    "qwen3-mup": changed(LLAMA, qk_norm=True, init="mup", mup_base_hidden_size=6, mup_base_head_size=24),
    "mixtral": changed(LLAMA, moe={"num_experts": 4}),
    "qwen3-moe": changed(LLAMA, qk_norm=True, moe={"num_experts": 3, "every_n_layers": 2, "ffn_hidden_size": 20}),
    "neox-partial-untied": changed(NEOX, rotary_fraction=1 / 3, tie_embeddings=False, ffn_hidden_size=40),
    "neox-mup": changed(NEOX, init="mup", mup_base_hidden_size=12, mup_base_head_size=24, activation="gelu"),
    "qwen2-wide-heads": changed(LLAMA, add_qkv_bias=True, kv_channels=10),
    "qwen2-mup": changed(LLAMA, add_qkv_bias=True, init="mup", mup_base_hidden_size=6, mup_base_head_size=24),
    "llama-biases-wide-heads": changed(LLAMA, add_bias=True, kv_channels=10, num_query_groups=1),
}


def random_weights(config: ModelConfig) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in logical_shapes(config).items()}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_round_trip_is_bit_exact(config: ModelConfig) -> None:
    weights = random_weights(config)
    exported = {
        hf_name: part for name, tensor in weights.items() for hf_name, part in to_huggingface(config, name, tensor)
    }
    returned = dict(from_huggingface(config, exported.__getitem__))

    assert list(returned) == list(weights)
    assert all(torch.equal(returned[name], weights[name]) for name in weights)
    assert {name: tuple(part.shape) for name, part in exported.items()} == huggingface_shapes(config)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_shapes_hold_every_parameter_once(config: ModelConfig) -> None:
    for shapes in (logical_shapes(config), huggingface_shapes(config)):
        assert sum(torch.Size(shape).numel() for shape in shapes.values()) == num_parameters(config)


def test_query_key_value_rows_are_taken_apart_by_group() -> None:
    config = changed(LLAMA, hidden_size=8, kv_channels=2)  # 4 heads in 2 groups: rows q q k v, q q k v of 2 each
    name = "decoder.layers.1.self_attention.linear_qkv.weight"
    fused = torch.arange(16.0).unsqueeze(1).expand(16, 8)

    parts = {hf_name: part[:, 0].tolist() for hf_name, part in to_huggingface(config, name, fused)}

    assert parts == {
        "model.layers.1.self_attn.q_proj.weight": [0, 1, 2, 3, 8, 9, 10, 11],
        "model.layers.1.self_attn.k_proj.weight": [4, 5, 12, 13],
        "model.layers.1.self_attn.v_proj.weight": [6, 7, 14, 15],
    }


def test_gpt2_fields() -> None:
    fields = huggingface_config(changed(GPT2, activation="gelu", norm_epsilon=1e-6, ffn_hidden_size=40), eod_id=49)
    assert fields["architectures"] == [huggingface_class(GPT2)] == ["GPT2LMHeadModel"]
    assert (fields["activation_function"], fields["layer_norm_epsilon"], fields["n_inner"]) == ("gelu", 1e-6, 40)
    assert (fields["bos_token_id"], fields["eos_token_id"], fields["pad_token_id"]) == (49, 49, None)
    assert fields["n_positions"] == 16
    assert fields["tie_word_embeddings"] is True
    assert huggingface_config(changed(GPT2, tie_embeddings=False), eod_id=49)["tie_word_embeddings"] is False
    assert huggingface_config(GPT2, eod_id=49)["activation_function"] == "gelu_new"


def test_llama_fields() -> None:
    fields = huggingface_config(changed(LLAMA, rope_base=5e5, kv_channels=10), eod_id=49, dtype="bfloat16")
    assert fields["architectures"] == [huggingface_class(LLAMA)] == ["LlamaForCausalLM"]
    assert fields["rope_theta"] == fields["rope_parameters"]["rope_theta"] == 5e5
    assert (fields["head_dim"], fields["num_key_value_heads"], fields["rms_norm_eps"]) == (10, 2, 1e-5)
    assert (fields["attention_bias"], fields["mlp_bias"], fields["dtype"]) == (False, False, "bfloat16")


def test_neox_fields() -> None:
    fields = huggingface_config(CONFIGS["neox-partial-untied"], eod_id=49)
    assert fields["architectures"] == ["GPTNeoXForCausalLM"]
    assert fields["use_parallel_residual"] is False
    assert (fields["rotary_pct"], fields["rotary_emb_base"]) == (1 / 3, 10_000.0)
    assert fields["rope_parameters"]["partial_rotary_factor"] == 1 / 3
    assert (fields["hidden_act"], fields["intermediate_size"]) == ("gelu_new", 40)


def test_qwen2_fields() -> None:
    fields = huggingface_config(CONFIGS["qwen2-wide-heads"], eod_id=49)
    assert (fields["architectures"], fields["model_type"]) == (["Qwen2ForCausalLM"], "qwen2")
    assert (fields["head_dim"], fields["use_sliding_window"]) == (10, False)
    assert not {"attention_bias", "mlp_bias"} & fields.keys()


def test_scaled_frequencies_are_told_to_both_versions_of_transformers() -> None:
    fields = huggingface_config(CONFIGS["llama-scaled"], eod_id=49)
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert fields["rope_scaling"] == scaling
    assert fields["rope_parameters"] == {**scaling, "rope_theta": 10_000.0}
    assert "rope_scaling" not in huggingface_config(LLAMA, eod_id=49)


def test_generation_ends_at_the_end_of_a_document() -> None:
    assert generation_config(49) == {"bos_token_id": 49, "eos_token_id": 49, "pad_token_id": 49}


REFUSED = [
    (changed(GPT2, normalization="rmsnorm"), r"model.normalization: rmsnorm .* GPT2LMHeadModel, .*; use layernorm"),
    (changed(GPT2, add_bias=False), r"model.add_bias: false has no counterpart in GPT2LMHeadModel.*; use true"),
    (changed(GPT2, num_query_groups=2), r"model.num_query_groups: 2 .*; use 4, the number of heads"),
    (changed(GPT2, kv_channels=8), r"model.kv_channels: 8 .*; use a hidden_size of 32, which is heads x head size"),
    (changed(GPT2, activation="swiglu"), r"model.activation: swiglu .*; use gelu_tanh or gelu"),
    (changed(NEOX, num_query_groups=2), r"model.num_query_groups: 2 .* GPTNeoXForCausalLM.*; use 4, the number"),
    (changed(NEOX, add_bias=False), r"model.add_bias: false has no counterpart in GPTNeoXForCausalLM.*; use true"),
    (changed(NEOX, qk_norm=True), r"model.qk_norm: true has no counterpart in GPTNeoXForCausalLM.*; use false"),
    (changed(LLAMA, rotary_fraction=1 / 3), r"model.rotary_fraction: 0.3.* has no counterpart in Llama.*; use 1"),
    (changed(LLAMA, add_qkv_bias=True, normalization="layernorm"), r"normalization: layernorm .* Qwen2ForCausalLM"),
    (changed(LLAMA, add_qkv_bias=True, moe={"num_experts": 4}), r"model.add_qkv_bias: true .* Mixtral.*; use false"),
    (changed(LLAMA, add_qkv_bias=True, qk_norm=True), r"model.(add_qkv_bias|qk_norm): true .*; use false"),
    (changed(LLAMA, position_embedding="learned"), r"model.position_embedding: learned .* LlamaForCausalLM.*use rope"),
    (changed(LLAMA, normalization="layernorm"), r"model.normalization: layernorm .*; use rmsnorm"),
    (changed(LLAMA, activation="gelu"), r"model.activation: gelu .*; use swiglu"),
    (changed(GPT2, local_attention_window=8), r"model.local_attention_window: 8 .* GPT2LMHeadModel.*; use null"),
    (changed(GPT2, qk_norm=True), r"model.qk_norm: true has no counterpart in GPT2LMHeadModel.*; use false"),
    (changed(LLAMA, qk_norm=True, add_bias=True), r"model.(qk_norm: true|add_bias: true) .*; use false"),
    (
        changed(LLAMA, moe={"num_experts": 4, "normalize_weights": False}),
        r"model.moe.normalize_weights: false .* MixtralForCausalLM.*; use true",
    ),
    (
        changed(LLAMA, qk_norm=True, activation="gelu", moe={"num_experts": 4}),
        r"model.activation: gelu .* Qwen3MoeForCausalLM.*; use swiglu",
    ),
    (changed(LLAMA, hidden_size=26, kv_channels=8), r"model.hidden_size: 26 .*\(4\), such as 28"),
]


@pytest.mark.parametrize(("config", "message"), REFUSED)
def test_what_has_no_counterpart_is_refused_by_name(config: ModelConfig, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        huggingface_class(config)
    assert len(export_problems(config)) == 1


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_what_has_a_counterpart_has_no_problems(config: ModelConfig) -> None:
    assert export_problems(config) == []


def test_unknown_tensor_is_refused() -> None:
    with pytest.raises(ExportError, match=r"decoder.layers.2.input_layernorm.weight: not a tensor of this model"):
        to_huggingface(GPT2, "decoder.layers.2.input_layernorm.weight", torch.zeros(24))


def test_wrong_shape_is_refused_both_ways() -> None:
    with pytest.raises(ExportError, match=r"linear_fc1.bias: shape \(7,\) where the config says \(96,\)"):
        to_huggingface(GPT2, "decoder.layers.0.mlp.linear_fc1.bias", torch.zeros(7))
    with pytest.raises(ModelImportError, match=r"transformer.wte.weight: of shape \(7, 24\), make .* says \(50, 24\)"):
        next(from_huggingface(GPT2, lambda _: torch.zeros(7, 24)))


def test_the_check_at_the_start_of_a_run_needs_no_torch() -> None:
    code = "import sys, gptdist.model.hf_config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
