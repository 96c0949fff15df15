"""Core attention for megatron-core layers on torch's scaled_dot_product_attention.

Letters: s sequence, b batch, n heads of this rank, g query groups of this rank, d head size, w window.
"""

import contextlib
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor


class CausalAttention(MegatronModule):
    """Causal attention of one layer, over this rank's heads; takes the place of megatron-core's core attention."""

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        window: int | None = None,
        multiplier: float = 1.0,
        **_: Any,
    ) -> None:
        """Take megatron-core's arguments; mask and type are always causal self-attention here.

        Args:
            config: of the model.
            layer_number: from 1; layers with an even one have the window.
            attn_mask_type: causal.
            attention_type: self.
            window: last tokens that such layers attend to, itself included.
            multiplier: of the scores, beyond 1 / sqrt(d).
        """
        super().__init__(config=config)
        assert attention_type == "self", f"layer {layer_number}: {attention_type} attention in a decoder-only model"
        assert attn_mask_type == AttnMaskType.causal, f"layer {layer_number}: mask {attn_mask_type}"
        self.dropout = config.attention_dropout
        self.window = window if layer_number % 2 == 0 else None
        self.multiplier = multiplier

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any
    ) -> Tensor:
        """Return the attended values.

        Shapes: query [s, b, n, d], key and value [s, b, g, d], attention_mask (what is attended to, causal itself)
        bool [b, 1, s, s] -> [s, b, n x d].
        """
        sequence, batch, heads, size = query.shape
        dropout = self.dropout if self.training else 0.0
        has_window = self.window is not None and self.window < sequence
        mask = attention_mask
        if self.window is not None and has_window:
            seen = window_mask(sequence, self.window, query.device)
            mask = seen if mask is None else mask & seen
        # Each tensor-parallel rank has other heads and must drop other weights: the tracker holds a seed a rank. Under
        # sequence parallelism megatron-core has forked to it for the whole layer, and must not be asked twice.
        forks = dropout and not self.config.sequence_parallel
        q, k, v = (tensor.permute(1, 2, 0, 3) for tensor in (query, key, value))
        with get_cuda_rng_tracker().fork() if forks else contextlib.nullcontext():
            attended = F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                is_causal=mask is None,
                dropout_p=dropout,
                scale=None if self.multiplier == 1.0 else self.multiplier / size**0.5,
                enable_gqa=heads != key.shape[2],
            )
        return attended.permute(2, 0, 1, 3).reshape(sequence, batch, heads * size)


@lru_cache(maxsize=4)
def window_mask(sequence: int, window: int, device: torch.device) -> Tensor:
    """Return bool [s, s]: whether a token (row) attends to another: itself and the w - 1 before it."""
    place = torch.arange(sequence, device=device)
    distance = place.unsqueeze(1) - place
    return (distance >= 0) & (distance < window)
