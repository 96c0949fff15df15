"""Logical tensors of a checkpoint to Hugging Face tensors and back, one at a time.

Each logical tensor has one rule: the names it gets, how it is split into them, and how they are joined again.
Letters: v vocabulary, s sequence, h hidden, n heads, g query groups, d head size, f feed-forward; r = n / g.

The fused query-key-value rows are interleaved by group, ``[q_0 … q_(r-1), k, v]`` of d rows each, in megatron-core.
Both sides rotate the halves of a head, so rotary models need no permutation.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from gptdist.config.exportable import GPT2_CLASS, MIXTRAL_CLASS, NEOX_CLASS, huggingface_class
from gptdist.config.model import ModelConfig
from gptdist.errors import ExportError, ModelImportError

Split = Callable[[torch.Tensor], list[torch.Tensor]]
Join = Callable[[list[torch.Tensor]], torch.Tensor]

_LAYER_PREFIX = "decoder.layers."


@dataclass(frozen=True)
class _Rule:
    """What becomes of one logical tensor."""

    names: tuple[str, ...]
    split: Split
    join: Join


def logical_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return every logical tensor of the model with its shape, in the order in which they are used."""
    layers = {
        f"{_LAYER_PREFIX}{number}.{name}": shape
        for number in range(config.num_layers)
        for name, shape in _layer_shapes(config, number).items()
    }
    return _embedding_shapes(config) | layers | _head_shapes(config)


def to_huggingface(config: ModelConfig, name: str, tensor: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """Return the Hugging Face tensors that the logical tensor ``name`` becomes; views where possible.

    Works on meta tensors too: that is how shapes are known before the data are read.

    Raises:
        ExportError: no class computes this model's function, or the tensor is not one of this model's, or its shape
            is wrong.
    """
    expected = _shape(config, name)
    if expected is None:
        raise ExportError(f"{name}: not a tensor of this model; check that the config belongs to the checkpoint")
    if tuple(tensor.shape) != expected:
        raise ExportError(
            f"{name}: shape {tuple(tensor.shape)} where the config says {expected}; "
            f"check that the config belongs to the checkpoint"
        )
    rule = _rule(config, name)
    return list(zip(rule.names, rule.split(_scaled(config, name, tensor, inverse=False)), strict=True))


def from_huggingface(config: ModelConfig, get: Callable[[str], torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every logical tensor of the model, built from Hugging Face tensors; the inverse of ``to_huggingface``.

    Args:
        config: the model that the tensors belong to.
        get: returns the Hugging Face tensor of a name.

    Raises:
        ExportError: no class computes this model's function.
        ModelImportError: a tensor has the wrong shape.
    """
    for name, shape in logical_shapes(config).items():
        rule = _rule(config, name)
        parts = [get(part) for part in rule.names]
        try:
            found = tuple((tensor := rule.join(parts)).shape)
        except (RuntimeError, ValueError):
            found = None
        if found != shape:
            raise ModelImportError(
                f"{', '.join(rule.names)}: of shape {', '.join(str(tuple(part.shape)) for part in parts)}, make "
                f"{name} of shape {found}, the config says {shape}; take the config.json that belongs to the weights"
            )
        yield name, _scaled(config, name, tensor, inverse=True)


def tied_names(config: ModelConfig) -> tuple[str, str]:
    """Return what the output matrix and the embedding are called, which are one where embeddings are tied."""
    names = (_rule(config, name).names[0] for name in ("output_layer.weight", "embedding.word_embeddings.weight"))
    return next(names), next(names)


def _scaled(config: ModelConfig, name: str, tensor: torch.Tensor, *, inverse: bool) -> torch.Tensor:
    """Put muP's multipliers into weights, as other tools have none: logits' into the last norm, scores' into queries.

    Args:
        config: the model.
        name: of the logical tensor.
        tensor: as it is here, or with ``inverse`` as it is there.
        inverse: take them out again.
    """
    scores = config.attention_multiplier
    if name.startswith("decoder.final_layernorm."):
        factor = 1.0 / config.width_multiplier
    elif config.qk_norm and ".self_attention.q_layernorm." in name:
        factor = scores
    elif not config.qk_norm and ".self_attention.linear_qkv." in name and scores != 1.0:
        groups, rest = config.query_groups, tensor.shape[1:]
        rows = tensor.reshape(groups, -1, config.head_size, *rest).clone()
        rows[:, :-2] *= 1.0 / scores if inverse else scores
        return rows.reshape(tensor.shape)
    else:
        return tensor
    return tensor if factor == 1.0 else tensor * (1.0 / factor if inverse else factor)


def huggingface_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return every Hugging Face tensor with its shape, in the order in which ``to_huggingface`` gives them.

    Raises:
        ExportError: no class computes this model's function.
    """
    return {
        hf_name: tuple(part.shape)
        for name, shape in logical_shapes(config).items()
        for hf_name, part in to_huggingface(config, name, torch.empty(shape, device="meta"))
    }


def _embedding_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    shapes = {"embedding.word_embeddings.weight": (config.vocab_size, config.hidden_size)}
    if config.position_embedding == "learned":
        shapes["embedding.position_embeddings.weight"] = (config.seq_length, config.hidden_size)
    return dict(shapes)


def _layer_shapes(config: ModelConfig, number: int) -> dict[str, tuple[int, ...]]:
    """Tensors of layer ``number``, by the part of the name behind it."""
    h, size, own = config.hidden_size, config.head_size, config.shapes()[number]
    linears: dict[str, tuple[int, ...]] = {}
    if own.heads:
        linears["self_attention.linear_qkv"] = ((own.heads + 2 * own.groups) * size, h)
        linears["self_attention.linear_proj"] = (h, own.heads * size)
    if config.moe is not None and config.has_experts(number):
        experts, f = config.moe.num_experts, config.expert_size
        linears["mlp.router"] = (experts, h)
        linears["mlp.experts.linear_fc1"] = (experts, 2 * f if config.is_gated else f, h)
        linears["mlp.experts.linear_fc2"] = (experts, h, f)
    elif own.ffn:
        linears["mlp.linear_fc1"] = (2 * own.ffn if config.is_gated else own.ffn, h)
        linears["mlp.linear_fc2"] = (h, own.ffn)
    norms = {"input_layernorm": own.heads, "pre_mlp_layernorm": own.ffn}
    shapes: dict[str, tuple[int, ...]] = {
        f"{norm}.{part}": (h,) for norm, is_there in norms.items() if is_there for part in _norm_parts(config)
    }
    if config.qk_norm and own.heads:
        heads_norms = ("self_attention.q_layernorm", "self_attention.k_layernorm")
        shapes |= {f"{norm}.{part}": (config.head_size,) for norm in heads_norms for part in _norm_parts(config)}
    for name, shape in linears.items():
        shapes[f"{name}.weight"] = shape
        if config.add_bias or (config.add_qkv_bias and name == "self_attention.linear_qkv"):
            shapes[f"{name}.bias"] = shape[:1]
    return shapes


def _head_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        f"decoder.final_layernorm.{part}": (config.hidden_size,) for part in _norm_parts(config)
    }
    if not config.tie_embeddings:
        shapes["output_layer.weight"] = (config.vocab_size, config.hidden_size)
    return shapes


def _norm_parts(config: ModelConfig) -> tuple[str, ...]:
    return ("weight", "bias") if config.normalization == "layernorm" else ("weight",)


def _shape(config: ModelConfig, name: str) -> tuple[int, ...] | None:
    """The shape of one logical tensor, or None where the model has no such tensor."""
    if not name.startswith(_LAYER_PREFIX):
        return (_embedding_shapes(config) | _head_shapes(config)).get(name)
    number, _, inner = name.removeprefix(_LAYER_PREFIX).partition(".")
    is_layer = number.isdecimal() and int(number) < config.num_layers
    return _layer_shapes(config, int(number)).get(inner) if is_layer else None


def _rule(config: ModelConfig, name: str) -> _Rule:
    """The rule of one logical tensor, its layer number filled in."""
    rules = {GPT2_CLASS: _gpt2_rule, NEOX_CLASS: _neox_rule}.get(huggingface_class(config), _llama_rule)
    if not name.startswith(_LAYER_PREFIX):
        return rules(config, name, "")
    number, _, inner = name.removeprefix(_LAYER_PREFIX).partition(".")
    return rules(config, inner, number)


def _gpt2_rule(config: ModelConfig, name: str, layer: str) -> _Rule:
    """GPT-2: linear weights are stored input by output, the transpose of torch's Linear."""
    module, _, part = name.rpartition(".")
    outer = {
        "embedding.word_embeddings": "transformer.wte",
        "embedding.position_embeddings": "transformer.wpe",
        "decoder.final_layernorm": "transformer.ln_f",
        "output_layer": "lm_head",
    }
    norms = {"input_layernorm": "ln_1", "pre_mlp_layernorm": "ln_2"}
    linears = {
        "self_attention.linear_qkv": "attn.c_attn",
        "self_attention.linear_proj": "attn.c_proj",
        "mlp.linear_fc1": "mlp.c_fc",
        "mlp.linear_fc2": "mlp.c_proj",
    }
    if not layer:
        return _Rule((f"{outer[module]}.{part}",), _as_is, _only)
    names = (f"transformer.h.{layer}.{norms.get(module) or linears[module]}.{part}",)
    if module == "self_attention.linear_qkv":
        return _Rule(names, partial(_stack_qkv, config), partial(_interleave_stacked, config))
    if module in linears and part == "weight":
        return _Rule(names, lambda tensor: [tensor.T], lambda parts: parts[0].T)
    return _Rule(names, _as_is, _only)


def _neox_rule(config: ModelConfig, name: str, layer: str) -> _Rule:
    """GPT-NeoX: queries, keys and values of a head lie side by side as they do here, so everything is copied."""
    module, _, part = name.rpartition(".")
    outer = {
        "embedding.word_embeddings": "gpt_neox.embed_in",
        "decoder.final_layernorm": "gpt_neox.final_layer_norm",
        "output_layer": "embed_out",
    }
    inner = {
        "input_layernorm": "input_layernorm",
        "pre_mlp_layernorm": "post_attention_layernorm",
        "self_attention.linear_qkv": "attention.query_key_value",
        "self_attention.linear_proj": "attention.dense",
        "mlp.linear_fc1": "mlp.dense_h_to_4h",
        "mlp.linear_fc2": "mlp.dense_4h_to_h",
    }
    target = f"gpt_neox.layers.{layer}.{inner[module]}" if layer else outer[module]
    return _Rule((f"{target}.{part}",), _as_is, _only)


def _llama_rule(config: ModelConfig, name: str, layer: str) -> _Rule:
    module, _, part = name.rpartition(".")
    outer = {
        "embedding.word_embeddings": "model.embed_tokens",
        "decoder.final_layernorm": "model.norm",
        "output_layer": "lm_head",
    }
    inner = {
        "input_layernorm": ("input_layernorm",),
        "pre_mlp_layernorm": ("post_attention_layernorm",),
        "self_attention.linear_qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "self_attention.q_layernorm": ("self_attn.q_norm",),
        "self_attention.k_layernorm": ("self_attn.k_norm",),
        "self_attention.linear_proj": ("self_attn.o_proj",),
        "mlp.linear_fc1": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.linear_fc2": ("mlp.down_proj",),
        **_expert_names(config),
    }
    if not layer:
        return _Rule((f"{outer[module]}.{part}",), _as_is, _only)
    names = tuple(f"model.layers.{layer}.{target}.{part}" for target in inner[module])
    if module == "self_attention.linear_qkv":
        return _Rule(names, partial(_split_qkv, config), partial(_interleave_qkv, config))
    if module == "mlp.linear_fc1":
        return _Rule(names, lambda tensor: list(tensor.chunk(2)), torch.cat)
    if module == "mlp.experts.linear_fc1":
        return _Rule(names, _gates_and_values, _joined_gates_and_values)
    if module == "mlp.experts.linear_fc2":
        return _Rule(names, lambda tensor: list(tensor.unbind()), torch.stack)
    return _Rule(names, _as_is, _only)


def _expert_names(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """What the router and each expert's matrices are called."""
    if config.moe is None:
        return {}
    is_mixtral = huggingface_class(config) == MIXTRAL_CLASS
    block, gate, up, down = (
        ("block_sparse_moe", "w1", "w3", "w2") if is_mixtral else ("mlp", "gate_proj", "up_proj", "down_proj")
    )
    experts = [f"{block}.experts.{expert}" for expert in range(config.moe.num_experts)]
    return {
        "mlp.router": (f"{block}.gate",),
        "mlp.experts.linear_fc1": tuple(f"{expert}.{part}" for expert in experts for part in (gate, up)),
        "mlp.experts.linear_fc2": tuple(f"{expert}.{down}" for expert in experts),
    }


def _gates_and_values(stacked: torch.Tensor) -> list[torch.Tensor]:
    """Shapes: [experts, 2 f, h] -> for each expert [f, h] and [f, h]."""
    return [part for expert in stacked.unbind() for part in expert.chunk(2)]


def _joined_gates_and_values(parts: list[torch.Tensor]) -> torch.Tensor:
    """The inverse of ``_gates_and_values``."""
    return torch.stack([torch.cat(parts[first : first + 2]) for first in range(0, len(parts), 2)])


def _as_is(tensor: torch.Tensor) -> list[torch.Tensor]:
    return [tensor]


def _only(parts: list[torch.Tensor]) -> torch.Tensor:
    (part,) = parts
    return part


def _split_qkv(config: ModelConfig, fused: torch.Tensor) -> list[torch.Tensor]:
    """Take the fused rows apart into queries, keys and values.

    Shapes: ``fused`` [g·(r+2)·d, …] -> [n·d, …], [g·d, …], [g·d, …]; the bias has no further dimension.
    """
    groups, rest = config.query_groups, fused.shape[1:]
    heads_per_group = config.num_attention_heads // groups
    grouped = fused.reshape(groups, heads_per_group + 2, config.head_size, *rest)
    slices = grouped.split([heads_per_group, 1, 1], dim=1)
    return [part.reshape(-1, *rest) for part in slices]


def _interleave_qkv(config: ModelConfig, parts: list[torch.Tensor]) -> torch.Tensor:
    """Fuse queries, keys and values; the inverse of ``_split_qkv``."""
    rest = parts[0].shape[1:]
    grouped = [part.reshape(config.query_groups, -1, config.head_size, *rest) for part in parts]
    return torch.cat(grouped, dim=1).reshape(-1, *rest)


def _stack_qkv(config: ModelConfig, fused: torch.Tensor) -> list[torch.Tensor]:
    """GPT-2's order: all queries, all keys, all values; a weight is transposed as well."""
    stacked = torch.cat(_split_qkv(config, fused))
    return [stacked.T if stacked.dim() == 2 else stacked]


def _interleave_stacked(config: ModelConfig, parts: list[torch.Tensor]) -> torch.Tensor:
    """The inverse of ``_stack_qkv``."""
    stacked = parts[0].T if parts[0].dim() == 2 else parts[0]
    return _interleave_qkv(config, list(stacked.chunk(3)))
