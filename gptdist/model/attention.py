"""Core attention for megatron-core layers on torch's scaled_dot_product_attention.

Letters: s sequence, b batch, n heads of this rank, g query groups of this rank, d head size.
"""

import contextlib
from typing import Any

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
        **_: Any,
    ) -> None:
        """Take megatron-core's arguments; mask and type are always causal self-attention here."""
        super().__init__(config=config)
        assert attention_type == "self", f"layer {layer_number}: {attention_type} attention in a decoder-only model"
        assert attn_mask_type == AttnMaskType.causal, f"layer {layer_number}: mask {attn_mask_type}"
        self.dropout = config.attention_dropout

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        """Return the attended values.

        Shapes: query [s, b, n, d], key and value [s, b, g, d] -> [s, b, n x d].
        """
        sequence, batch, heads, size = query.shape
        dropout = self.dropout if self.training else 0.0
        # Each tensor-parallel rank has other heads and must drop other weights: the tracker holds a seed a rank.
        q, k, v = (tensor.permute(1, 2, 0, 3) for tensor in (query, key, value))
        with get_cuda_rng_tracker().fork() if dropout else contextlib.nullcontext():
            attended = F.scaled_dot_product_attention(
                q, k, v, is_causal=True, dropout_p=dropout, enable_gqa=heads != key.shape[2]
            )
        return attended.permute(2, 0, 1, 3).reshape(sequence, batch, heads * size)
