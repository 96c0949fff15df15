"""``config.json`` of the Hugging Face class that computes the function of a ModelConfig; no torch."""

from typing import Any

from gptdist.config.exportable import (
    GPT2_ACTIVATIONS,
    GPT2_CLASS,
    LLAMA_CLASS,
    MIXTRAL_CLASS,
    NEOX_CLASS,
    QWEN2_CLASS,
    QWEN3_CLASS,
    QWEN3_MOE_CLASS,
    huggingface_class,
)
from gptdist.config.model import ModelConfig


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
        NEOX_CLASS: _neox_fields,
        QWEN2_CLASS: _qwen2_fields,
        LLAMA_CLASS: _llama_fields,
        QWEN3_CLASS: _qwen3_fields,
        MIXTRAL_CLASS: _mixtral_fields,
        QWEN3_MOE_CLASS: _qwen3_moe_fields,
    }[name]
    return shared | fields(config)


def generation_config(eod_id: int) -> dict[str, Any]:
    """Return ``generation_config.json``: where a text begins and ends, and what fills a batch's short rows."""
    return {"bos_token_id": eod_id, "eos_token_id": eod_id, "pad_token_id": eod_id}


def _gpt2_fields(config: ModelConfig) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "n_positions": config.seq_length,
        "n_embd": config.hidden_size,
        "n_layer": config.num_layers,
        "n_head": config.num_attention_heads,
        "n_inner": config.ffn_size,
        "activation_function": GPT2_ACTIVATIONS[config.activation],
        "layer_norm_epsilon": config.norm_epsilon,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


def _neox_fields(config: ModelConfig) -> dict[str, Any]:
    return _rotary_fields(config, {"partial_rotary_factor": config.rotary_fraction}) | {
        "model_type": "gpt_neox",
        "max_position_embeddings": config.seq_length,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": config.ffn_size,
        "hidden_act": GPT2_ACTIVATIONS[config.activation],
        "layer_norm_eps": config.norm_epsilon,
        "use_parallel_residual": False,
        "attention_bias": True,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        # transformers 4's names
        "rotary_emb_base": config.rope_base,
        "rotary_pct": config.rotary_fraction,
    }


def _qwen2_fields(config: ModelConfig) -> dict[str, Any]:
    fields = _llama_fields(config) | {"model_type": "qwen2", "use_sliding_window": False}
    del fields["mlp_bias"], fields["attention_bias"]
    return fields


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


def _rotary_fields(config: ModelConfig, more: dict[str, Any]) -> dict[str, Any]:
    """Return what says how positions rotate, to both versions of transformers; ``more`` is of the class."""
    parameters = {"rope_type": "default", "rope_theta": config.rope_base, **more}
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
    # rope_theta is read by transformers 4, rope_parameters by 5; without either, both silently take 10000
    return older | {"rope_theta": config.rope_base, "rope_parameters": parameters}


def _llama_fields(config: ModelConfig) -> dict[str, Any]:
    return _rotary_fields(config, {}) | {
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
    }
