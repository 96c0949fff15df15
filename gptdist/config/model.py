"""The model's shape and switches."""

from typing import Literal

from gptdist.config.section import Section


class ModelConfig(Section):
    """A GPT-style decoder: GPT-2/GPT-3 and Llama are settings of the same switches."""

    num_layers: int
    """Transformer layers."""

    hidden_size: int
    """Width of the residual stream."""

    num_attention_heads: int
    """Query heads."""

    seq_length: int
    """Tokens a sample, and the number of positions the model knows."""

    vocab_size: int
    """Rows of the embedding, without padding; at least the tokenizer's vocabulary."""

    ffn_hidden_size: int | None = None
    """Width of the feed-forward layer; default 4 x hidden_size, or for swiglu 8/3 of it rounded up to 64."""

    num_query_groups: int | None = None
    """Key and value heads (grouped-query attention); default num_attention_heads."""

    kv_channels: int | None = None
    """Size of one head; default hidden_size / num_attention_heads."""

    position_embedding: Literal["learned", "rope"] = "learned"
    """``learned`` as in GPT-2 and GPT-3, ``rope`` as in Llama."""

    rope_base: float = 10_000.0
    """Base of the rotary frequencies."""

    normalization: Literal["layernorm", "rmsnorm"] = "layernorm"
    """``layernorm`` as in GPT-2, ``rmsnorm`` as in Llama."""

    norm_epsilon: float = 1e-5
    """Added to the variance before its root is taken."""

    activation: Literal["gelu_tanh", "gelu", "swiglu"] = "gelu_tanh"
    """``gelu_tanh`` is GPT-2's; ``gelu`` is the exact one; ``swiglu`` gates a second projection."""

    add_bias: bool = True
    """Biases in all linear layers."""

    tie_embeddings: bool = True
    """One matrix for input embedding and output projection."""

    attention_dropout: float = 0.0
    """Probability of dropping an attention weight while training."""

    hidden_dropout: float = 0.0
    """Probability of dropping an activation before it joins the residual stream, while training."""

    init_std: float = 0.02
    """Standard deviation of initial weights; those that write into the residual stream get it / sqrt(2 x layers)."""

    @property
    def is_gated(self) -> bool:
        """Whether the feed-forward layer has a gate beside its up-projection."""
        return self.activation == "swiglu"

    @property
    def ffn_size(self) -> int:
        """Width of the feed-forward layer."""
        if self.ffn_hidden_size is not None:
            return self.ffn_hidden_size
        return -(-8 * self.hidden_size // (3 * 64)) * 64 if self.is_gated else 4 * self.hidden_size

    @property
    def query_groups(self) -> int:
        """Number of key and value heads."""
        return self.num_attention_heads if self.num_query_groups is None else self.num_query_groups

    @property
    def head_size(self) -> int:
        """Size of one attention head."""
        return self.hidden_size // self.num_attention_heads if self.kv_channels is None else self.kv_channels

    def problems(self) -> list[str]:
        """Return every reason why no model has this shape."""
        sizes = {
            "num_layers": self.num_layers,
            "hidden_size": self.hidden_size,
            "num_attention_heads": self.num_attention_heads,
            "num_query_groups": self.query_groups,
            "kv_channels": 1 if self.num_attention_heads < 1 else self.head_size,
            "ffn_hidden_size": self.ffn_size,
            "seq_length": self.seq_length,
            "vocab_size": self.vocab_size,
        }
        bad = [f"model.{name}: must be at least 1, got {value}" for name, value in sizes.items() if value < 1]
        if bad:
            return bad
        heads, hidden, groups = self.num_attention_heads, self.hidden_size, self.query_groups
        if self.kv_channels is None and hidden % heads:
            bad.append(
                f"model.num_attention_heads ({heads}) does not divide model.hidden_size ({hidden}); "
                f"change one of them, or set model.kv_channels"
            )
        if heads % groups:
            bad.append(
                f"model.num_query_groups ({groups}) does not divide model.num_attention_heads ({heads}); "
                f"use one of {_divisors(heads)}"
            )
        if self.position_embedding == "rope" and self.head_size % 2:
            bad.append(f"model.kv_channels: rotary positions need an even head size, got {self.head_size}")
        for name in ("attention_dropout", "hidden_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                bad.append(f"model.{name}: must be at least 0 and below 1, got {getattr(self, name)}")
        for name in ("init_std", "norm_epsilon", "rope_base"):
            if getattr(self, name) <= 0.0:
                bad.append(f"model.{name}: must be above 0, got {getattr(self, name)}")
        return bad


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]
