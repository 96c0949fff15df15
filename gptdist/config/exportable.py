"""Which Hugging Face class computes the function of a ModelConfig, if any; no torch.

A run's config is checked with it, so that nobody trains a model by mistake that cannot be handed off.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from gptdist.config.model import ModelConfig
from gptdist.config.moe import MoeConfig
from gptdist.errors import ExportError

GPT2_CLASS = "GPT2LMHeadModel"
NEOX_CLASS = "GPTNeoXForCausalLM"
"""GPT-2's layers with rotary positions."""
LLAMA_CLASS = "LlamaForCausalLM"
QWEN2_CLASS = "Qwen2ForCausalLM"
"""Llama's layers with biases of queries, keys and values."""
QWEN3_CLASS = "Qwen3ForCausalLM"
"""Llama's layers with a norm of queries and keys."""
MIXTRAL_CLASS = "MixtralForCausalLM"
"""Llama's layers with experts."""
QWEN3_MOE_CLASS = "Qwen3MoeForCausalLM"
"""Qwen 3's layers with experts."""

FAMILIES = {
    GPT2_CLASS: "GPT-2",
    NEOX_CLASS: "GPT-NeoX",
    LLAMA_CLASS: "Llama",
    QWEN2_CLASS: "Qwen 2",
    QWEN3_CLASS: "Qwen 3",
    MIXTRAL_CLASS: "Mixtral",
    QWEN3_MOE_CLASS: "Qwen 3 MoE",
}
"""Every class that an export can have, and what its models are called."""

GPT2_ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu": "gelu"}
"""What the activations of GPT-2 and GPT-NeoX are called there."""


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
        (QWEN2_CLASS, list(_qwen2_mismatches(config))),
        (QWEN3_CLASS, list(_qwen3_mismatches(config))),
        (NEOX_CLASS, list(_neox_mismatches(config))),
    ]
    if config.position_embedding == "rope":
        families = families[1:] + families[:1]
    return min(families, key=lambda family: len(family[1]))


def _layer_mismatches(config: ModelConfig) -> Iterator[_Mismatch]:
    if config.local_attention_window is not None:
        yield _Mismatch("local_attention_window", config.local_attention_window, "null")
    others = sum(shape != config.common_shape for shape in config.shapes())
    if others:
        legal = "null, which gives all layers the model's shape"
        yield _Mismatch("layer_shapes", f"another shape in {others} of {config.num_layers} layers", legal)


def _gpt2_mismatches(config: ModelConfig) -> Iterator[_Mismatch]:
    yield from _plain_mismatches(config)
    if config.position_embedding != "learned":
        yield _Mismatch("position_embedding", config.position_embedding, "learned")


def _neox_mismatches(config: ModelConfig) -> Iterator[_Mismatch]:
    yield from _plain_mismatches(config)
    if config.position_embedding != "rope":
        yield _Mismatch("position_embedding", config.position_embedding, "rope")


def _plain_mismatches(config: ModelConfig) -> Iterator[_Mismatch]:
    """What GPT-2 and GPT-NeoX lack."""
    yield from _layer_mismatches(config)
    if config.qk_norm:
        yield _Mismatch("qk_norm", "true", "false")
    if config.normalization != "layernorm":
        yield _Mismatch("normalization", config.normalization, "layernorm")
    if config.activation not in GPT2_ACTIVATIONS:
        yield _Mismatch("activation", config.activation, " or ".join(GPT2_ACTIVATIONS))
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
    if config.add_qkv_bias:
        yield _Mismatch("add_qkv_bias", "true", "false")


def _llama_mismatches(config: ModelConfig) -> Iterator[_Mismatch]:
    yield from _rotary_mismatches(config)
    if config.qk_norm:
        yield _Mismatch("qk_norm", "true", "false")
    if config.add_qkv_bias:
        yield _Mismatch("add_qkv_bias", "true", "false")


def _qwen2_mismatches(config: ModelConfig) -> Iterator[_Mismatch]:
    yield from _rotary_mismatches(config)
    if config.qk_norm:
        yield _Mismatch("qk_norm", "true", "false")
    if config.add_bias:
        yield _Mismatch("add_bias", "true", "false")
    if not config.add_qkv_bias:
        yield _Mismatch("add_qkv_bias", "false", "true")


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
    if config.rotary_fraction != 1.0:
        yield _Mismatch("rotary_fraction", config.rotary_fraction, "1")
    heads = config.num_attention_heads
    if config.hidden_size % heads:
        # transformers checks it even where head_dim is given
        legal = f"a multiple of num_attention_heads ({heads}), such as {-(-config.hidden_size // heads) * heads}"
        yield _Mismatch("hidden_size", config.hidden_size, legal)
