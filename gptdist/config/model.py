"""The model's shape and switches."""

from typing import Literal

from gptdist.config.layer_shapes import LayerShape, LayerShapes, shape_problems, split_sizes
from gptdist.config.moe import MoeConfig
from gptdist.config.section import Section


class RopeScaling(Section):
    """Stretch rotary frequencies to positions beyond the length that the model first learned, as Llama 3.1 does.

    Wavelengths above ``original_seq_length / low_frequency_factor`` are stretched by ``factor``, those below
    ``original_seq_length / high_frequency_factor`` stay, and those between are blended.

    Source: ``rope_type: llama3`` of the published Llama 3.1 configs.
    """

    factor: float
    """How many times longer the positions reach."""

    original_seq_length: int = 8192
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0

    def problems(self) -> list[str]:
        """Return every value out of its range."""
        bad = []
        if self.factor < 1.0:
            bad.append(f"model.rope_scaling.factor: must be at least 1, got {self.factor}")
        if self.original_seq_length < 1:
            bad.append(f"model.rope_scaling.original_seq_length: must be at least 1, got {self.original_seq_length}")
        if not 0.0 < self.low_frequency_factor < self.high_frequency_factor:
            bad.append(
                f"model.rope_scaling.low_frequency_factor: must be above 0 and below high_frequency_factor "
                f"({self.high_frequency_factor}), got {self.low_frequency_factor}"
            )
        return bad


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

    layer_shapes: tuple[LayerShapes, ...] | None = None
    """Shapes of the layers where they differ, from the first layer on; unset: all have those above."""

    position_embedding: Literal["learned", "rope"] = "learned"
    """``learned`` as in GPT-2 and GPT-3, ``rope`` as in Llama."""

    rope_base: float = 10_000.0
    """Base of the rotary frequencies."""

    rotary_fraction: float = 1.0
    """Share of each head's values that rotary positions turn, from the first on; the rest pass as they are (GPT-NeoX:
    0.25)."""

    rope_scaling: RopeScaling | None = None
    """Unset leaves the rotary frequencies as they are."""

    normalization: Literal["layernorm", "rmsnorm"] = "layernorm"
    """``layernorm`` as in GPT-2, ``rmsnorm`` as in Llama."""

    norm_epsilon: float = 1e-5
    """Added to the variance before its root is taken."""

    qk_norm: bool = False
    """Normalise each head's queries and keys, with weights of the head's size that all heads share (as Qwen 3)."""

    local_attention_window: int | None = None
    """Every second layer, beginning with the second, attends to so many last tokens, itself included (the alternating
    banded layers of GPT-3, whose paper does not print the width). Unset: every layer attends to all before."""

    activation: Literal["gelu_tanh", "gelu", "swiglu"] = "gelu_tanh"
    """``gelu_tanh`` is GPT-2's; ``gelu`` is the exact one; ``swiglu`` gates a second projection."""

    moe: MoeConfig | None = None
    """Experts in place of feed-forward layers; unset: every layer is dense."""

    add_bias: bool = True
    """Biases in all linear layers."""

    add_qkv_bias: bool = False
    """Biases where queries, keys and values are made, and nowhere else (as Qwen 2); with add_bias all have them."""

    tie_embeddings: bool = True
    """One matrix for input embedding and output projection."""

    attention_dropout: float = 0.0
    """Probability of dropping an attention weight while training."""

    hidden_dropout: float = 0.0
    """Probability of dropping an activation before it joins the residual stream, while training."""

    init: Literal["gpt2", "small", "mup"] = "gpt2"
    """``gpt2``: init_std, divided by sqrt(2 x layers) in matrices that write into the residual stream. ``small``:
    sqrt(2 / (5 x hidden_size)), in those matrices 2 / (layers x sqrt(hidden_size)); init_std is not used. ``mup``: as
    gpt2 at mup_base_hidden_size, and for other widths with what keeps the best learning rate where it was."""

    init_std: float = 0.02
    """Standard deviation of initial weights."""

    mup_base_hidden_size: int | None = None
    """Width at which ``mup`` changes nothing: that of the small model on which the learning rate was searched."""

    mup_base_head_size: int | None = None
    """Likewise of one head; default: the head size of this model."""

    @property
    def width_multiplier(self) -> float:
        """How many times wider than the base model muP's model is; 1 without muP."""
        if self.init != "mup" or self.mup_base_hidden_size is None:
            return 1.0
        return self.hidden_size / self.mup_base_hidden_size

    @property
    def attention_multiplier(self) -> float:
        """What attention scores are multiplied by beyond 1 / sqrt(head_size): 1 / sqrt of muP's head multiplier."""
        if self.init != "mup" or self.mup_base_head_size is None:
            return 1.0
        return float((self.mup_base_head_size / self.head_size) ** 0.5)

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
    def expert_size(self) -> int:
        """Width of one expert."""
        if self.moe is None or self.moe.ffn_hidden_size is None:
            return self.ffn_size
        return self.moe.ffn_hidden_size

    def has_experts(self, layer: int) -> bool:
        """Whether ``layer``, counted from 0, has experts in place of a feed-forward layer."""
        return self.moe is not None and (layer + 1) % self.moe.every_n_layers == 0

    @property
    def num_expert_layers(self) -> int:
        """Layers that have experts."""
        return 0 if self.moe is None else self.num_layers // self.moe.every_n_layers

    @property
    def query_groups(self) -> int:
        """Number of key and value heads."""
        return self.num_attention_heads if self.num_query_groups is None else self.num_query_groups

    @property
    def head_size(self) -> int:
        """Size of one attention head."""
        return self.hidden_size // self.num_attention_heads if self.kv_channels is None else self.kv_channels

    @property
    def rotary_size(self) -> int:
        """Values of each head that rotary positions turn."""
        return int(self.head_size * self.rotary_fraction)

    @property
    def has_qkv_bias(self) -> bool:
        """Whether there are biases where queries, keys and values are made."""
        return self.add_bias or self.add_qkv_bias

    @property
    def common_shape(self) -> LayerShape:
        """What a layer is made of, unless layer_shapes say otherwise."""
        return LayerShape(self.num_attention_heads, self.query_groups, self.ffn_size)

    def shapes(self) -> list[LayerShape]:
        """Return what each layer is made of; of one that has experts the feed-forward width means nothing."""
        if self.layer_shapes is None:
            return [self.common_shape] * self.num_layers
        is_grouped = self.num_query_groups is not None
        runs = ([run.shape(self.common_shape, is_grouped=is_grouped)] * run.layers for run in self.layer_shapes)
        return [shape for run in runs for shape in run]

    def split_sizes(self) -> dict[str, int]:
        """Return the sizes of layers that tensor parallelism must divide, by key of this section."""
        return split_sizes(self.layer_shapes, self.common_shape, is_grouped=self.num_query_groups is not None)

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
        bad += self._position_problems()
        if self.local_attention_window is not None and self.local_attention_window < 1:
            bad.append(f"model.local_attention_window: must be at least 1, got {self.local_attention_window}")
        bad += self._init_problems() + self._moe_problems()
        if self.layer_shapes is not None:
            bad += shape_problems(
                self.layer_shapes,
                self.common_shape,
                is_grouped=self.num_query_groups is not None,
                num_layers=self.num_layers,
                has_experts=self.moe is not None,
            )
        for name in ("attention_dropout", "hidden_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                bad.append(f"model.{name}: must be at least 0 and below 1, got {getattr(self, name)}")
        for name in ("init_std", "norm_epsilon", "rope_base"):
            if getattr(self, name) <= 0.0:
                bad.append(f"model.{name}: must be above 0, got {getattr(self, name)}")
        return bad

    def _position_problems(self) -> list[str]:
        """Return what is wrong with positions and with what queries and keys are made of."""
        bad = []
        if self.add_bias and self.add_qkv_bias:
            bad.append("model.add_qkv_bias: add_bias has these biases already; remove one of the two")
        if not 0.0 < self.rotary_fraction <= 1.0:
            bad.append(f"model.rotary_fraction: must be above 0 and at most 1, got {self.rotary_fraction}")
        elif self.position_embedding != "rope" and self.rotary_fraction != 1.0:
            bad.append("model.rotary_fraction: belongs to position_embedding rope, not learned; remove it")
        elif self.position_embedding == "rope" and self.rotary_fraction == 1.0 and self.head_size % 2:
            bad.append(f"model.kv_channels: rotary positions need an even head size, got {self.head_size}")
        elif self.position_embedding == "rope" and (self.rotary_size < 2 or self.rotary_size % 2):
            bad.append(
                f"model.rotary_fraction: {self.rotary_fraction} of a head of {self.head_size} are {self.rotary_size} "
                f"values; rotary positions turn pairs: choose a fraction that makes it even and at least 2"
            )
        if self.rope_scaling is not None:
            bad += self.rope_scaling.problems()
            if self.position_embedding != "rope":
                bad.append("model.rope_scaling: belongs to position_embedding rope, not learned; remove it")
        return bad

    def _init_problems(self) -> list[str]:
        bad = []
        if self.init == "mup" and self.mup_base_hidden_size is None:
            bad.append("model.mup_base_hidden_size: missing; init mup needs the width that the learning rate is for")
        for name in ("mup_base_hidden_size", "mup_base_head_size"):
            value = getattr(self, name)
            if value is not None and self.init != "mup":
                bad.append(f"model.{name}: belongs to init mup, not {self.init}; remove it")
            elif value is not None and value < 1:
                bad.append(f"model.{name}: must be at least 1, got {value}")
        return bad

    def _moe_problems(self) -> list[str]:
        if self.moe is None:
            return []
        bad = self.moe.problems()
        if self.add_bias:
            bad.append("model.add_bias: experts have no biases; set it to false, or remove model.moe")
        if self.init == "mup":
            bad.append("model.init: mup's rules are not known for a router; use gpt2 or small, or remove model.moe")
        if not bad and self.num_expert_layers == 0:
            bad.append(
                f"model.moe.every_n_layers ({self.moe.every_n_layers}): no layer of {self.num_layers} has experts; "
                f"use at most {self.num_layers}"
            )
        return bad


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]
