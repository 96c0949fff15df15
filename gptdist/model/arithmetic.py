"""Parameter counts and FLOPs of a model, from its config alone; no torch.

Letters: L layers, h hidden, v vocabulary, s sequence, f feed-forward width, q and k the widths of queries and keys.
"""

from gptdist.config.layer_shapes import LayerShape
from gptdist.config.model import ModelConfig


def num_parameters(model: ModelConfig) -> int:
    """Return trained values of the model, without vocabulary padding."""
    return _count(model, 1 if model.moe is None else model.moe.num_experts)


def num_active_parameters(model: ModelConfig) -> int:
    """Return the values that one token meets: of the experts, those that it takes; all else whole."""
    return _count(model, 1 if model.moe is None else model.moe.experts_per_token)


def _count(model: ModelConfig, experts: int) -> int:
    """Return the model's values with so many experts a layer."""
    hidden, bias = model.hidden_size, int(model.add_bias)
    parts = 2 if model.normalization == "layernorm" else 1
    norm, head_norms = hidden * parts, 2 * model.head_size * parts if model.qk_norm else 0
    total = norm + model.vocab_size * hidden * (1 if model.tie_embeddings else 2)
    if model.position_embedding == "learned":
        total += model.seq_length * hidden
    for layer, shape in enumerate(model.shapes()):
        joined = (shape.heads + 2 * shape.groups) * model.head_size
        if shape.heads:
            total += _attention_matrices(model, shape) + head_norms + norm
            total += int(model.has_qkv_bias) * joined + bias * hidden
        if shape.ffn:
            total += _feed_forward_matrices(model, layer, experts) + norm
            total += 0 if model.has_experts(layer) else bias * (_up(model, shape.ffn) + hidden)
    return total


def _up(model: ModelConfig, width: int) -> int:
    """Return outputs of the first matrix of a feed-forward part of ``width``."""
    return width * (2 if model.is_gated else 1)


def _attention_matrices(model: ModelConfig, shape: LayerShape) -> int:
    """Return values in the attention matrices of a layer."""
    return 2 * model.hidden_size * (shape.heads + shape.groups) * model.head_size


def _feed_forward_matrices(model: ModelConfig, layer: int, experts: int) -> int:
    """Return values in the feed-forward matrices of ``layer``, the router included, with so many experts."""
    hidden = model.hidden_size
    if model.moe is not None and model.has_experts(layer):
        expert = hidden * (_up(model, model.expert_size) + model.expert_size)
        return experts * expert + hidden * model.moe.num_experts
    width = model.shapes()[layer].ffn
    return hidden * (_up(model, width) + width)


def flops_per_token(model: ModelConfig, seq_length: int | None = None) -> float:
    """Return model FLOPs of one training token: forward and backward, nothing recomputed.

    Sequences are of ``seq_length`` tokens; default: those of the model.

    6 x (values in weight matrices that multiply a token, output projection included) + 12 x q x (tokens attended to, on
    average) for each layer's scores and weighted values: s / 2 of a causal layer, w - w^2 / 2s of one with a window w.

    Source: Chowdhery et al. 2022 (PaLM), appendix B, with the attention term halved for the causal mask.
    """
    sequence = model.seq_length if seq_length is None else seq_length
    window = min(model.local_attention_window or sequence, sequence)
    experts = 1 if model.moe is None else model.moe.experts_per_token
    matrices, attended = model.vocab_size * model.hidden_size, 0.0
    for layer, shape in enumerate(model.shapes()):
        matrices += _attention_matrices(model, shape) + _feed_forward_matrices(model, layer, experts)
        seen = sequence / 2 if layer % 2 == 0 else window - window**2 / (2 * sequence)
        attended += shape.heads * model.head_size * seen
    return 6.0 * matrices + 12.0 * attended
