"""Which Hugging Face class computes the function of a ModelConfig, and its ``config.json``; no torch.

A run asks ``export_problems`` before it starts, so that nobody trains a model that cannot be handed off.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gptdist.config.model import ModelConfig
from gptdist.config.moe import MoeConfig
from gptdist.errors import ExportError

GPT2_CLASS = "GPT2LMHeadModel"
LLAMA_CLASS = "LlamaForCausalLM"
QWEN3_CLASS = "Qwen3ForCausalLM"
"""Llama's layers with a norm of queries and keys."""
MIXTRAL_CLASS = "MixtralForCausalLM"
"""Llama's layers with experts."""
QWEN3_MOE_CLASS = "Qwen3MoeForCausalLM"
"""Qwen 3's layers with experts."""

_GPT2_ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu": "gelu"}


@dataclass(frozen=True)
class _Mismatch:
    """A switch that a class does not have: which, its value, and the nearest legal setting."""

    key: str
    value: object
    legal: str


def huggingface_class(config: ModelConfig) -> str:
    """Return the name of the transformers class that computes exactly this model's function.

    Raises:
        ExportError: no class does; names each switch that has no counterpart and a legal setting of it.
    """
    problems = export_problems(config)
    if problems:
        raise ExportError("; ".join(problems))
    return _nearest(config)[0]


def export_problems(config: ModelConfig) -> list[str]:
    """Return every switch of ``config`` that the nearest Hugging Face class lacks; empty when one has them all."""
    name, mismatches = _nearest(config)
    return [
        f"model.{mismatch.key}: {mismatch.value} has no counterpart in {name}, the nearest Hugging Face class; "
        f"use {mismatch.legal}"
        for mismatch in mismatches
    ]


def huggingface_config(config: ModelConfig, *, eod_id: int, dtype: str = "float32") -> dict[str, Any]:
    """Return ``config.json``: what transformers needs to rebuild this model's function.

    Dropouts are 0: they are no part of the function. There is no padding token: naming end-of-document as one would
    freeze its embedding in the Llama class and hide it from the loss of the usual fine-tuning collators.

    Args:
        config: the trained model.
        eod_id: the tokenizer's end-of-document token; it begins and ends a text.
        dtype: of the weights in the folder, ``float32`` or ``bfloat16``.

    Raises:
        ExportError: no Hugging Face class computes this function.
    """
    name = huggingface_class(config)
    shared = {
        "architectures": [name],
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tie_embeddings,
        # transformers takes at most 1 here; it only matters to who re-initialises the model
        "initializer_range": min(config.init_std, 1.0),
        "bos_token_id": eod_id,
        "eos_token_id": eod_id,
        "pad_token_id": None,
        "use_cache": True,
        "dtype": dtype,
    }
    fields = {
        GPT2_CLASS: _gpt2_fields,
        LLAMA_CLASS: _llama_fields,
        QWEN3_CLASS: _qwen3_fields,
        MIXTRAL_CLASS: _mixtral_fields,
        QWEN3_MOE_CLASS: _qwen3_moe_fields,
    }[name]
    return shared | fields(config)


def generation_config(eod_id: int) -> dict[str, Any]:
    """Return ``generation_config.json``: where a text begins and ends, and what fills a batch's short rows."""
    return {"bos_token_id": eod_id, "eos_token_id": eod_id, "pad_token_id": eod_id}


def _nearest(config: ModelConfig) -> tuple[str, list[_Mismatch]]:
    """The class with the fewest mismatches; between equals, the one with the model's position embedding."""
    if config.moe is not None:
        families = [
            (MIXTRAL_CLASS, list(_mixtral_mismatches(config, config.moe))),
            (QWEN3_MOE_CLASS, list(_qwen3_mismatches(config))),
        ]
        return min(families, key=lambda family: len(family[1]))
    families = [
        (GPT2_CLASS, list(_gpt2_mismatches(config))),
        (LLAMA_CLASS, list(_llama_mismatches(config))),
        (QWEN3_CLASS, list(_qwen3_mismatches(config))),
    ]
    if config.position_embedding == "rope":
        families = families[1:] + families[:1]
    return min(families, key=lambda family: len(family[1]))


def _layer_mismatches(config: ModelConfig) -> Iterator[_Mismatch]:
    if config.local_attention_window is not None:
        yield _Mismatch("local_attention_window", config.local_attention_window, "null")
    others = sum(shape != config.common_shape for shape in config.shapes())
    if others:
        legal = "null, which gives all layers the model's shape; training and resume do not need a counterpart"
        yield _Mismatch("layer_shapes", f"another shape in {others} of {config.num_layers} layers", legal)


def _gpt2_mismatches(config: ModelConfig) -> Iterator[_Mismatch]:
    yield from _layer_mismatches(config)
    if config.qk_norm:
        yield _Mismatch("qk_norm", "true", "false")
    if config.position_embedding != "learned":
        yield _Mismatch("position_embedding", config.position_embedding, "learned")
    if config.normalization != "layernorm":
        yield _Mismatch("normalization", config.normalization, "layernorm")
    if config.activation not in _GPT2_ACTIVATIONS:
        yield _Mismatch("activation", config.activation, " or ".join(_GPT2_ACTIVATIONS))
    if not config.add_bias:
        yield _Mismatch("add_bias", "false", "true")
    heads = config.num_attention_heads
    if config.query_groups != heads:
        yield _Mismatch("num_query_groups", config.query_groups, f"{heads}, the number of heads")
    if config.head_size * heads != config.hidden_size:
        legal = f"a hidden_size of {heads * config.head_size}, which is heads x head size"
        yield _Mismatch("kv_channels", config.head_size, legal)


def _qwen3_mismatches(config: ModelConfig) -> Iterator[_Mismatch]:
    yield from _rotary_mismatches(config)
    if not config.qk_norm:
        yield _Mismatch("qk_norm", "false", "true")
    if config.add_bias:
        yield _Mismatch("add_bias", "true", "false")


def _llama_mismatches(config: ModelConfig) -> Iterator[_Mismatch]:
    yield from _rotary_mismatches(config)
    if config.qk_norm:
        yield _Mismatch("qk_norm", "true", "false")


def _mixtral_mismatches(config: ModelConfig, moe: MoeConfig) -> Iterator[_Mismatch]:
    yield from _llama_mismatches(config)
    if not moe.normalize_weights:
        yield _Mismatch("moe.normalize_weights", "false", "true")
    if moe.every_n_layers != 1:
        yield _Mismatch("moe.every_n_layers", moe.every_n_layers, "1")


def _rotary_mismatches(config: ModelConfig) -> Iterator[_Mismatch]:
    """What Llama, Qwen 3 and their like lack."""
    yield from _layer_mismatches(config)
    if config.position_embedding != "rope":
        yield _Mismatch("position_embedding", config.position_embedding, "rope")
    if config.normalization != "rmsnorm":
        yield _Mismatch("normalization", config.normalization, "rmsnorm")
    if config.activation != "swiglu":
        yield _Mismatch("activation", config.activation, "swiglu")
    heads = config.num_attention_heads
    if config.hidden_size % heads:
        # transformers checks it even where head_dim is given
        legal = f"a multiple of num_attention_heads ({heads}), such as {-(-config.hidden_size // heads) * heads}"
        yield _Mismatch("hidden_size", config.hidden_size, legal)


def _gpt2_fields(config: ModelConfig) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "n_positions": config.seq_length,
        "n_embd": config.hidden_size,
        "n_layer": config.num_layers,
        "n_head": config.num_attention_heads,
        "n_inner": config.ffn_size,
        "activation_function": _GPT2_ACTIVATIONS[config.activation],
        "layer_norm_epsilon": config.norm_epsilon,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


def _qwen3_fields(config: ModelConfig) -> dict[str, Any]:
    fields = _llama_fields(config) | {"model_type": "qwen3", "use_sliding_window": False}
    del fields["mlp_bias"]
    return fields


def _mixtral_fields(config: ModelConfig) -> dict[str, Any]:
    assert config.moe is not None, "a class with experts for a model without"
    fields = _llama_fields(config) | {
        "model_type": "mixtral",
        "intermediate_size": config.expert_size,
        "num_local_experts": config.moe.num_experts,
        "num_experts_per_tok": config.moe.experts_per_token,
        "router_aux_loss_coef": config.moe.aux_loss,
        "sliding_window": None,
    }
    del fields["mlp_bias"], fields["attention_bias"]
    return fields


def _qwen3_moe_fields(config: ModelConfig) -> dict[str, Any]:
    assert config.moe is not None, "a class with experts for a model without"
    return _qwen3_fields(config) | {
        "model_type": "qwen3_moe",
        "moe_intermediate_size": config.expert_size,
        "num_experts": config.moe.num_experts,
        "num_experts_per_tok": config.moe.experts_per_token,
        "norm_topk_prob": config.moe.normalize_weights,
        "decoder_sparse_step": config.moe.every_n_layers,
        "mlp_only_layers": [],
        "router_aux_loss_coef": config.moe.aux_loss,
    }


def _llama_fields(config: ModelConfig) -> dict[str, Any]:
    parameters = {"rope_type": "default", "rope_theta": config.rope_base}
    scaling = config.rope_scaling
    if scaling is not None:
        parameters |= {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_frequency_factor,
            "high_freq_factor": scaling.high_frequency_factor,
            "original_max_position_embeddings": scaling.original_seq_length,
        }
    # transformers 4 reads the scaling by itself
    older = {} if scaling is None else {"rope_scaling": {k: v for k, v in parameters.items() if k != "rope_theta"}}
    return older | {
        "model_type": "llama",
        "max_position_embeddings": config.seq_length,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.query_groups,
        "head_dim": config.head_size,
        "intermediate_size": config.ffn_size,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_epsilon,
        "attention_bias": config.add_bias,
        "mlp_bias": config.add_bias,
        "attention_dropout": 0.0,
        # the first is read by transformers 4, the second by 5; without either, both silently take 10000
        "rope_theta": config.rope_base,
        "rope_parameters": parameters,
    }
