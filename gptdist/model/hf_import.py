"""The model that a Hugging Face ``config.json`` stands for; no torch.

What a class can do and this framework cannot is refused by name, and so is every key that is not known here: a model
that comes out as another function is worse than one that is not taken.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from gptdist.config.exportable import (
    GPT2_CLASS,
    LLAMA_CLASS,
    MIXTRAL_CLASS,
    NEOX_CLASS,
    QWEN2_CLASS,
    QWEN3_CLASS,
    QWEN3_MOE_CLASS,
    export_problems,
    huggingface_class,
)
from gptdist.config.model import ModelConfig
from gptdist.errors import ModelImportError

_MODEL_TYPES = {
    GPT2_CLASS: "gpt2",
    NEOX_CLASS: "gpt_neox",
    QWEN2_CLASS: "qwen2",
    LLAMA_CLASS: "llama",
    QWEN3_CLASS: "qwen3",
    MIXTRAL_CLASS: "mixtral",
    QWEN3_MOE_CLASS: "qwen3_moe",
}

_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}

_NO_FUNCTION = {
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "attn_pdrop",
    "bos_token_id",
    "classifier_dropout",
    "chunk_size_feed_forward",
    "dtype",
    "embd_pdrop",
    "eos_token_id",
    "hidden_dropout",
    "id2label",
    "is_encoder_decoder",
    "label2id",
    "max_window_layers",
    "model_type",
    "n_ctx",
    "output_router_logits",
    "pad_token_id",
    "problem_type",
    "reorder_and_upcast_attn",
    "resid_pdrop",
    "return_dict",
    "router_jitter_noise",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_specific_params",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
"""Keys that say nothing of the function that is computed, or something of training alone."""

_FIXED = {
    "is_decoder": False,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "hidden_act": "silu",
    "pretraining_tp": 1,
    "partial_rotary_factor": 1.0,
    "use_sliding_window": False,
    "quantization_config": None,
    "auto_map": None,
}
"""Keys whose other values this framework does not have."""


class _Fields:
    """``config.json``, of which every key has to be looked at."""

    def __init__(self, tree: Mapping[str, Any], where: str) -> None:
        self.where = where
        self._tree = dict(tree)

    def take(self, key: str, default: Any = None) -> Any:
        """Return the value of ``key``, and the default where it is missing or null."""
        value = self._tree.pop(key, None)
        return default if value is None else value

    def need(self, key: str) -> Any:
        """Return the value of ``key``."""
        value = self.take(key)
        if value is None:
            raise ModelImportError(f"{self.where}: {key}: missing; take the config.json that belongs to the weights")
        return value

    def refuse(self, key: str, value: object, advice: str) -> ModelImportError:
        """Return the error for a value that has no counterpart."""
        return ModelImportError(f"{self.where}: {key}: {value} has no counterpart here; {advice}")

    def require_nothing_left(self) -> None:
        """Refuse every key that nobody took, unless it switches nothing on."""
        for key, legal in _FIXED.items():
            value = self.take(key, legal)
            if value != legal:
                raise self.refuse(key, value, f"only {legal} can be imported")
        left = sorted(key for key, value in self._tree.items() if key not in _NO_FUNCTION and value)
        if left:
            raise ModelImportError(
                f"{self.where}: {', '.join(left)}: not known here, and may change the function; "
                f"remove from a copy of it what does not"
            )


def model_from_huggingface(tree: Mapping[str, Any], where: str) -> ModelConfig:
    """Return the model whose function ``config.json`` describes.

    Args:
        tree: content of ``config.json``.
        where: its path.

    Raises:
        ModelImportError: it is of a class, or says something, that has no counterpart here.
    """
    names = tree.get("architectures") or []
    name = str(names[0]) if isinstance(names, list) and names else "none"
    if name not in _MODEL_TYPES or tree.get("model_type") != _MODEL_TYPES[name]:
        raise ModelImportError(
            f"{where}: architectures {name}, model_type {tree.get('model_type')}; can be imported: "
            f"{', '.join(_MODEL_TYPES)}"
        )
    try:
        section = _section(_Fields(tree, where), name)
    except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise ModelImportError(f"{where}: a value is not of its kind ({error}); take another copy") from None
    model = ModelConfig.from_tree(section, origin=where)
    bad = [f"{where}: as {problem}" for problem in model.problems() + export_problems(model)]
    if bad:
        raise ModelImportError("; ".join(bad))
    assert huggingface_class(model) == name, f"{name} came out as {huggingface_class(model)}"
    return model


def _section(fields: _Fields, name: str) -> dict[str, Any]:
    """Return the model section that takes up every key."""
    section = {GPT2_CLASS: _gpt2, NEOX_CLASS: _neox}.get(name, partial(_rotary, name=name))(fields)
    if (std := float(fields.take("initializer_range", 0.0))) > 0.0:
        section["init_std"] = std
    fields.require_nothing_left()
    return section


def _gpt2(fields: _Fields) -> dict[str, Any]:
    hidden = fields.need("n_embd")
    activation = fields.take("activation_function", "gelu_new")
    if activation not in _ACTIVATIONS:
        raise fields.refuse("activation_function", activation, f"use one of {', '.join(_ACTIVATIONS)}")
    return {
        "num_layers": fields.need("n_layer"),
        "hidden_size": hidden,
        "num_attention_heads": fields.need("n_head"),
        "seq_length": fields.need("n_positions"),
        "vocab_size": fields.need("vocab_size"),
        "ffn_hidden_size": fields.take("n_inner", 4 * hidden),
        "activation": _ACTIVATIONS[activation],
        "norm_epsilon": fields.take("layer_norm_epsilon", 1e-5),
        "tie_embeddings": fields.take("tie_word_embeddings", True),
    }


def _neox(fields: _Fields) -> dict[str, Any]:
    activation = fields.take("hidden_act", "gelu")
    if activation not in _ACTIVATIONS:
        raise fields.refuse("hidden_act", activation, f"use one of {', '.join(_ACTIVATIONS)}")
    for key, legal in (("use_parallel_residual", False), ("attention_bias", True)):
        value = fields.take(key, True)
        if value is not legal:
            raise fields.refuse(key, value, f"only {str(legal).lower()} can be imported")
    return {
        "num_layers": fields.need("num_hidden_layers"),
        "hidden_size": fields.need("hidden_size"),
        "num_attention_heads": fields.need("num_attention_heads"),
        "seq_length": fields.need("max_position_embeddings"),
        "vocab_size": fields.need("vocab_size"),
        "ffn_hidden_size": fields.need("intermediate_size"),
        "activation": _ACTIVATIONS[activation],
        "norm_epsilon": fields.take("layer_norm_eps", 1e-5),
        "tie_embeddings": fields.take("tie_word_embeddings", False),
        **_rope(fields, default_base=1e4, default_fraction=0.25),
    }


def _rotary(fields: _Fields, name: str) -> dict[str, Any]:
    """Llama and its kin."""
    is_llama = name == LLAMA_CLASS
    heads, hidden = fields.need("num_attention_heads"), fields.need("hidden_size")
    take_size = fields.take if is_llama else lambda key, _: fields.need(key)  # other classes have defaults of their own
    has_head_size = name in (QWEN3_CLASS, QWEN3_MOE_CLASS)
    section = {
        "num_layers": fields.need("num_hidden_layers"),
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_query_groups": take_size("num_key_value_heads", heads),
        "kv_channels": fields.need("head_dim") if has_head_size else fields.take("head_dim", hidden // heads),
        "seq_length": fields.need("max_position_embeddings"),
        "vocab_size": fields.need("vocab_size"),
        "ffn_hidden_size": fields.need("intermediate_size"),
        "normalization": "rmsnorm",
        "norm_epsilon": fields.need("rms_norm_eps"),
        "activation": "swiglu",
        "qk_norm": has_head_size,
        "add_bias": _bias(fields, has_mlp_bias=is_llama),
        "add_qkv_bias": name == QWEN2_CLASS,
        "tie_embeddings": fields.take("tie_word_embeddings", False),
        **_rope(fields, default_base=1e4 if is_llama else None),
    }
    _refuse_windows(fields, name)
    if name == MIXTRAL_CLASS:
        section["moe"] = {
            "num_experts": fields.need("num_local_experts"),
            "ffn_hidden_size": section["ffn_hidden_size"],
            **_routing(fields),
        }
    elif name == QWEN3_MOE_CLASS:
        section["moe"] = {
            "num_experts": fields.need("num_experts"),
            "ffn_hidden_size": fields.need("moe_intermediate_size"),
            "normalize_weights": fields.take("norm_topk_prob", False),
            "every_n_layers": fields.take("decoder_sparse_step", 1),
            **_routing(fields),
        }
    return section


def _routing(fields: _Fields) -> dict[str, Any]:
    return {
        "experts_per_token": fields.need("num_experts_per_tok"),
        "aux_loss": fields.take("router_aux_loss_coef", 0.0),
    }


def _bias(fields: _Fields, *, has_mlp_bias: bool) -> bool:
    attention = bool(fields.take("attention_bias", False))
    feed_forward = bool(fields.take("mlp_bias", False)) if has_mlp_bias else False
    if attention != feed_forward:
        raise fields.refuse(
            "attention_bias", f"{attention} with biases elsewhere {feed_forward}", "all linear layers have one or none"
        )
    return attention


def _rope(fields: _Fields, default_base: float | None, default_fraction: float | None = None) -> dict[str, Any]:
    """Both versions of transformers: rope_parameters of 5; rope_theta, rope_scaling, and GPT-NeoX's own names, of 4.

    A class of which a part of each head rotates has a ``default_fraction``.
    """
    newer, older = dict(fields.take("rope_parameters", {})), dict(fields.take("rope_scaling", {}))
    base = _one_value(fields, "rope_theta", ("rope_theta", "rotary_emb_base"), newer, default_base)
    section: dict[str, Any] = {"position_embedding": "rope", "rope_base": base}
    if default_fraction is not None:
        turned = ("partial_rotary_factor", "rotary_pct")
        older.pop("partial_rotary_factor", None)
        section["rotary_fraction"] = _one_value(fields, "rotary_pct", turned, newer, default_fraction)
    if newer and older and newer != older:
        raise ModelImportError(f"{fields.where}: rope_parameters {newer} and rope_scaling {older}; give one of them")
    scaling = newer or older
    kind = scaling.pop("rope_type", None) or scaling.pop("type", None) or "default"
    scaling.pop("type", None)
    if kind == "llama3":
        names = {
            "factor": "factor",
            "original_seq_length": "original_max_position_embeddings",
            "low_frequency_factor": "low_freq_factor",
            "high_frequency_factor": "high_freq_factor",
        }
        section["rope_scaling"] = {ours: scaling.pop(theirs, None) for ours, theirs in names.items()}
    elif kind != "default":
        raise fields.refuse("rope_type", kind, "default and llama3 can be imported")
    if float(scaling.pop("partial_rotary_factor", 1.0)) != 1.0 or scaling:
        raise fields.refuse("rope_parameters", scaling or "partial_rotary_factor", f"{kind} is known without it")
    return section


def _one_value(
    fields: _Fields, key: str, names: tuple[str, ...], newer: dict[str, Any], default: float | None
) -> float:
    """Return what all of ``names`` say that are there, in the file or in its ``newer`` rope_parameters."""
    found = {
        float(value) for name in names for value in (fields.take(name), newer.pop(name, None)) if value is not None
    }
    if not found and default is not None:
        return default
    if len(found) != 1:
        raise ModelImportError(
            f"{fields.where}: {key}: {' and '.join(map(str, sorted(found))) or 'missing'}; give one value"
        )
    return found.pop()


def _refuse_windows(fields: _Fields, name: str) -> None:
    """Refuse every key by which a layer would not attend to all that is before."""
    window = fields.take("sliding_window")
    if window is not None and name not in (QWEN2_CLASS, QWEN3_CLASS, QWEN3_MOE_CLASS):  # those have use_sliding_window
        raise fields.refuse("sliding_window", window, "only layers that attend to all before can be imported")
    kinds = set(fields.take("layer_types", []))
    if kinds - {"full_attention"}:
        raise fields.refuse("layer_types", ", ".join(sorted(kinds)), "only full_attention can be imported")
    layers = fields.take("mlp_only_layers", [])
    if layers:
        raise fields.refuse("mlp_only_layers", layers, "only decoder_sparse_step can say which layers have experts")
