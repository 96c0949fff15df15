"""Parameter counts and FLOPs of a model, from its config alone; no torch.

Letters: L layers, h hidden, v vocabulary, s sequence, f feed-forward width, q and k the widths of queries and keys.
"""

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
    query = model.num_attention_heads * model.head_size
    key = model.query_groups * model.head_size
    attention = hidden * (query + 2 * key) + bias * (query + 2 * key) + query * hidden + bias * hidden
    parts = 2 if model.normalization == "layernorm" else 1
    norm, head_norms = hidden * parts, 2 * model.head_size * parts if model.qk_norm else 0
    embeddings = model.vocab_size * hidden * (1 if model.tie_embeddings else 2)
    if model.position_embedding == "learned":
        embeddings += model.seq_length * hidden
    feed_forward = _feed_forward_matrices(model, experts)
    feed_forward += (model.num_layers - model.num_expert_layers) * bias * (_up(model, model.ffn_size) + hidden)
    return model.num_layers * (attention + head_norms + 2 * norm) + feed_forward + norm + embeddings


def _up(model: ModelConfig, width: int) -> int:
    """Return outputs of the first matrix of a feed-forward part of ``width``."""
    return width * (2 if model.is_gated else 1)


def _feed_forward_matrices(model: ModelConfig, experts: int) -> int:
    """Return values in the feed-forward matrices of all layers, routers included, with so many experts a layer."""
    hidden = model.hidden_size
    dense = hidden * (_up(model, model.ffn_size) + model.ffn_size)
    expert = hidden * (_up(model, model.expert_size) + model.expert_size)
    router = 0 if model.moe is None else hidden * model.moe.num_experts
    mixed = model.num_expert_layers
    return (model.num_layers - mixed) * dense + mixed * (experts * expert + router)


def flops_per_token(model: ModelConfig, seq_length: int | None = None) -> float:
    """Return model FLOPs of one training token: forward and backward, nothing recomputed.

    Sequences are of ``seq_length`` tokens; default: those of the model.

    6 x (values in weight matrices that multiply a token, output projection included) + 12 x q x (tokens attended to, on
    average) for each layer's scores and weighted values: s / 2 of a causal layer, w - w^2 / 2s of one with a window w.

    Source: Chowdhery et al. 2022 (PaLM), appendix B, with the attention term halved for the causal mask.
    """
    hidden = model.hidden_size
    query = model.num_attention_heads * model.head_size
    key = model.query_groups * model.head_size
    matrices = model.num_layers * (hidden * (query + 2 * key) + query * hidden)
    matrices += _feed_forward_matrices(model, 1 if model.moe is None else model.moe.experts_per_token)
    matrices += model.vocab_size * hidden
    windowed = model.num_layers // 2 if model.local_attention_window is not None else 0
    sequence = model.seq_length if seq_length is None else seq_length
    window = min(model.local_attention_window or sequence, sequence)
    attended = (model.num_layers - windowed) * sequence / 2
    attended += windowed * (window - window**2 / (2 * sequence))
    return 6.0 * matrices + 12.0 * query * attended
