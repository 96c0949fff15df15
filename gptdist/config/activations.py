"""Bytes that autograd keeps of a micro batch from the forward to the backward pass, on one rank; no torch.

Counted as the model's layers keep them, tensor by tensor: an activation that two operations keep counts once, and so
do views of the same memory. Experts are taken to be chosen evenly, as the router's losses would have it: how many
tokens each really gets is seen while training. A rank whose experts get more keeps more, by ``expert_imbalance``.

Letters: b micro batch, s sequence, c context-parallel, t tensor-parallel size, h hidden, e bytes of a value.
"""

from dataclasses import dataclass

from gptdist.config.model import ModelConfig

FP32_BYTES = 4
TOKEN_BYTES = 8
"""Of a token's id or position: int64."""

MASK_TYPE_BYTES = 4
"""megatron-core keeps the kind of the mask as a tensor where it computes attention again."""

NORM_STATISTICS = {"layernorm": 2, "rmsnorm": 1}
"""Values that a norm keeps of each vector: mean and 1 / deviation, or 1 / root mean square."""


@dataclass(frozen=True)
class LayerSizes:
    """Sizes of one layer."""

    hidden: int
    heads: int
    groups: int
    head_size: int
    ffn: int
    """Width of the feed-forward part, or of one expert."""

    window: int | None = None
    """Last tokens that it attends to; None for all."""

    experts: int = 0
    """Experts in place of a feed-forward part; 0: it is dense."""

    @classmethod
    def of(cls, model: ModelConfig, layer: int) -> "LayerSizes":
        """Return those of ``layer``, counted from 0."""
        shape = model.shapes()[layer]
        return cls(
            hidden=model.hidden_size,
            heads=shape.heads,
            groups=shape.groups,
            head_size=model.head_size,
            ffn=model.expert_size if model.has_experts(layer) else shape.ffn,
            window=model.local_attention_window if layer % 2 == 1 else None,
            experts=model.moe.num_experts if model.moe is not None and model.has_experts(layer) else 0,
        )


@dataclass(frozen=True)
class RankShare:
    """What one rank computes of a micro batch, and with which kernels."""

    micro_batch_size: int
    seq_length: int
    tensor_parallel_size: int = 1
    context_parallel_size: int = 1
    sequence_parallel: bool = False
    value_bytes: int = FP32_BYTES
    """Of an activation: 4 in fp32, 2 in bf16 and fp16."""

    is_fp16: bool = False
    """Then the head keeps its matrix' gradient in fp32, for the loss scale is still to come."""

    on_gpu: bool = False
    """There, dropout keeps bits for a mask, not values, a norm works in the activations' format, and attention with
    dropout is one kernel too, which keeps no scores."""

    separate_documents: bool = False
    """Whether a mask says which tokens each may attend to."""

    expert_imbalance: float = 1.0
    """Tokens that this rank's experts get, in times of what they would get if all were chosen evenly."""

    is_visited: bool = False
    """Whether ranks of an expert group send each other their tokens."""

    @property
    def tokens(self) -> int:
        """Tokens that matrices see."""
        return self.micro_batch_size * self.seq_length // self.context_parallel_size

    @property
    def residual_tokens(self) -> int:
        """Tokens of norms, residuals and dropout."""
        return self.tokens // self.tensor_parallel_size if self.sequence_parallel else self.tokens

    def chunks(self, window: int | None) -> list[tuple[int, int]]:
        """Return queries and keys of each piece that attention is done in.

        Under context parallelism a rank has two pieces of 2c. Those of the second rank are taken: the first rank's
        very first piece needs no mask, any other does.
        """
        if self.context_parallel_size == 1:
            return [(self.seq_length, self.seq_length)]
        queries = self.seq_length // (2 * self.context_parallel_size)
        ends = (2 * queries, self.seq_length - queries)
        return [(queries, end if window is None else min(end, queries + window - 1)) for end in ends]


@dataclass(frozen=True)
class LayerActivations:
    """Bytes kept of one layer for one micro batch, by what can be computed again."""

    input: int
    """All that is kept of a layer that is computed again whole."""

    attention: int
    """Queries, keys, values, scores and the like, as attention keeps them."""

    attention_input: int
    """What is kept in their place where attention is computed again: queries, keys and values."""

    mlp: int
    """Inner activations of the feed-forward part; nothing is kept in their place."""

    rest: int
    """Norms, inputs of the matrices, what is rotated by, dropout between the matrices."""

    @property
    def whole(self) -> int:
        """Bytes kept where nothing is computed again."""
        return self.rest + self.attention + self.mlp

    @classmethod
    def of(cls, model: ModelConfig, sizes: LayerSizes, share: RankShare) -> "LayerActivations":
        """Count those of a layer."""
        wide = share.residual_tokens * sizes.hidden * share.value_bytes
        attention = _Attention(model, sizes, share)
        norm = _norm(model.normalization, share, share.residual_tokens, sizes.hidden)
        dropout = _dropped(share, share.residual_tokens * sizes.hidden) if model.hidden_dropout else 0
        parts = [size for size in (sizes.heads, sizes.ffn) if size]  # each has its norm, its input and dropout
        inner = share.tokens * sizes.ffn // share.tensor_parallel_size * share.value_bytes
        return cls(
            input=wide,
            attention=attention.kept() if sizes.heads else 0,
            attention_input=attention.inputs() if sizes.heads else 0,
            # Gated: gate and up-projection, the activated gate, a copy of the up-projection, their product.
            mlp=_expert_bytes(model, sizes, share) if sizes.experts else inner * (5 if model.is_gated else 2),
            rest=len(parts) * (norm + wide + dropout) + (attention.around() if sizes.heads else 0),
        )


def _expert_bytes(model: ModelConfig, sizes: LayerSizes, share: RankShare) -> int:
    """Return what router and experts of a layer keep: of each token's choice, and of each pair of token and expert."""
    assert model.moe is not None, "a layer of experts in a model without"
    tokens, k = share.tokens, model.moe.experts_per_token
    pairs = round(tokens * k / share.tensor_parallel_size * share.expert_imbalance)
    # In fp32: the softmax; weights before they add up to 1, and their sum; for the z-loss logits, and log of the sum.
    scores = sizes.experts + (k + 1 if model.moe.normalize_weights else 0)
    scores += sizes.experts + 1 if model.moe.router_z_loss else 0
    has_loss = model.moe.aux_loss or model.moe.router_z_loss
    routed = FP32_BYTES * (tokens * scores + (sizes.experts if has_loss else 0))  # each expert's share of the choices
    routed += TOKEN_BYTES * tokens * k * 2  # each token's experts, and the pairs' order
    routed += TOKEN_BYTES * pairs * (2 if share.is_visited else 0)  # the order of what came, and back
    wide, inner = pairs * sizes.hidden, pairs * sizes.ffn
    # Tokens as experts see them, and outputs before they are weighed; inner ones as in a dense part, but for copies.
    values = 2 * wide + inner * (4 if model.is_gated else 2) + pairs
    return routed + values * share.value_bytes


def _norm(kind: str, share: RankShare, vectors: int, size: int, *, is_view: bool = False) -> int:
    """Return what a norm of so many vectors keeps: input and statistics; of RMSNorm on a CPU also the unscaled output.

    Args:
        kind: of the norm.
        share: of this rank.
        vectors: that are normalised.
        size: of each.
        is_view: whether the input lies in memory that is counted elsewhere.
    """
    values = vectors * size
    if kind == "rmsnorm" and not share.on_gpu:  # made of single operations, all in fp32
        given = 0 if is_view and share.value_bytes == FP32_BYTES else values * FP32_BYTES
        return given + values * FP32_BYTES + vectors * FP32_BYTES
    statistic = FP32_BYTES if share.on_gpu else share.value_bytes
    return (0 if is_view else values * share.value_bytes) + NORM_STATISTICS[kind] * vectors * statistic


def _dropped(share: RankShare, values: int) -> int:
    return values if share.on_gpu else values * share.value_bytes


class _Attention:
    """Attention of one layer on one rank: its queries, keys and values are views of what one matrix made, or copies."""

    def __init__(self, model: ModelConfig, sizes: LayerSizes, share: RankShare) -> None:
        self._model, self._sizes, self._share = model, sizes, share
        self._heads = sizes.heads // share.tensor_parallel_size
        self._groups = sizes.groups // share.tensor_parallel_size
        self._query = share.tokens * self._heads * sizes.head_size * share.value_bytes
        self._key = share.tokens * self._groups * sizes.head_size * share.value_bytes
        self._joined = self._query + 2 * self._key
        self._is_grouped = sizes.heads != sizes.groups
        # Queries of several groups do not lie side by side, and are copied out of what the matrix made.
        self._copies_query = self._is_grouped and self._groups > 1
        self._is_made_anew = model.position_embedding == "rope" or model.qk_norm
        self._is_fp32 = share.value_bytes == FP32_BYTES
        self._is_split = share.context_parallel_size > 1
        # On a CPU torch has no kernel with dropout in one piece: single operations in fp32.
        self._in_pieces = model.attention_dropout > 0.0 and not share.on_gpu

    def around(self) -> int:
        """Return bytes of the output, and of what leads to queries and keys."""
        model, sizes, share = self._model, self._sizes, self._share
        total = self._query
        if model.position_embedding == "rope":  # sine and cosine of the angles, for queries and for keys
            total += 4 * share.seq_length // share.context_parallel_size * model.rotary_size * share.value_bytes
        if model.qk_norm:
            queries, keys = share.tokens * self._heads, share.tokens * self._groups
            total += _norm(model.normalization, share, queries, sizes.head_size, is_view=not self._copies_query)
            total += _norm(model.normalization, share, keys, sizes.head_size, is_view=True)
        return total

    def inputs(self) -> int:
        """Return bytes of queries, keys and values."""
        own_query = self._query if self._is_made_anew or self._copies_query else 0
        return self._joined + own_query + (self._key if self._is_made_anew else 0) + MASK_TYPE_BYTES

    def kept(self) -> int:
        """Return bytes that attention keeps, its output left out."""
        if self._in_pieces:
            return self._kept_in_pieces()
        share, window = self._share, self._sizes.window
        total = share.tokens * self._heads * FP32_BYTES  # log of each row's sum
        for queries, keys in share.chunks(window):
            if share.separate_documents:
                total += share.micro_batch_size * queries * keys * share.value_bytes
            elif queries < keys or (window is not None and window < keys):
                total += queries * keys * share.value_bytes
        if not self._is_split:
            return total + self.inputs() - MASK_TYPE_BYTES
        own_query = self._query if self._is_made_anew or self._copies_query else 0
        joined = self._joined if not own_query or self._norm_keeps_joined() else 0
        outputs = self._query  # of the pieces, which are then put together
        return total + own_query + joined + outputs + self._gathered()

    def _kept_in_pieces(self) -> int:
        """Weights before and after dropout and what it multiplied by; scaled queries and keys; values of each head."""
        share, size = self._share, self._sizes.head_size
        pieces = share.chunks(self._sizes.window)
        seen = sum(keys for _, keys in pieces)
        scores = 3 * sum(queries * keys for queries, keys in pieces)
        vectors = sum(queries for queries, _ in pieces) + seen
        joined, values = self._norm_keeps_joined(), 0
        if self._is_grouped or not self._is_fp32:
            vectors += seen
        elif self._is_split:
            values = self._gathered()
        else:
            joined = True
        total = share.micro_batch_size * self._heads * FP32_BYTES * (scores + size * vectors)
        return total + values + (self._joined if joined else 0)

    def _gathered(self) -> int:
        """Bytes of keys and values of all context-parallel ranks."""
        return 2 * self._key * self._share.context_parallel_size

    def _norm_keeps_joined(self) -> bool:
        """Whether queries or keys are normalised straight from what the matrix made."""
        is_copied = self._model.normalization == "rmsnorm" and not self._share.on_gpu and not self._is_fp32
        return self._model.qk_norm and not is_copied


def angle_bytes(model: ModelConfig, share: RankShare) -> int:
    """Return bytes of the rotary angles, which layers that are computed again keep together."""
    if model.position_embedding != "rope":
        return 0
    return share.seq_length // share.context_parallel_size * model.rotary_size * FP32_BYTES


def embedding_bytes(model: ModelConfig, share: RankShare) -> int:
    """Return what is kept ahead of the first layer."""
    kept = share.tokens * TOKEN_BYTES * (2 if model.position_embedding == "learned" else 1)
    if share.tensor_parallel_size > 1:
        kept += share.tokens  # which of them are not in this rank's rows
    if model.hidden_dropout:
        kept += _dropped(share, share.residual_tokens * model.hidden_size)
    return kept


def head_bytes(model: ModelConfig, share: RankShare, rows: int) -> int:
    """Return what is kept behind the last layer, with so many ``rows`` of the output matrix on this rank.

    The gradients of hidden states and matrix are computed in the forward pass.
    """
    norm = _norm(model.normalization, share, share.residual_tokens, model.hidden_size)
    matrix = rows * (FP32_BYTES if share.is_fp16 else share.value_bytes)
    return norm + (share.tokens * share.value_bytes + matrix) * model.hidden_size
