"""Core attention for megatron-core layers on torch's scaled_dot_product_attention.

Under context parallelism a rank has the queries of its own tokens and gathers the keys and values of all: with grouped
queries they are small, and masks of any form stay simple.

Source: context parallelism by an all-gather of keys and values: Grattafiori et al. 2024 (Llama 3), section 3.3.2.

Letters: s sequence, c context-parallel size, b batch, n heads of this rank, g query groups of this rank, d head size,
w window, q queries of a chunk, k keys that they see.
"""

import contextlib
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

from gptdist.mesh.context import WHOLE, ContextPart, gather_samples


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
        context_group: dist.ProcessGroup | None = None,
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
            context_group: ranks that share the tokens of each sample; none where this one has all.
        """
        super().__init__(config=config)
        assert attention_type == "self", f"layer {layer_number}: {attention_type} attention in a decoder-only model"
        assert attn_mask_type == AttnMaskType.causal, f"layer {layer_number}: mask {attn_mask_type}"
        self.dropout = config.attention_dropout
        self.window = window if layer_number % 2 == 0 else None
        self.multiplier = multiplier
        self.context_group = context_group
        self.part = WHOLE if context_group is None else ContextPart.among(context_group)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any
    ) -> Tensor:
        """Return the attended values.

        Shapes: query [s / c, b, n, d], key and value [s / c, b, g, d], attention_mask (what is attended to, causal
        itself) bool [b, 1, s / c, s] -> [s / c, b, n x d].

        Communication: over the context group, that of ``gather_samples`` for keys and values.
        """
        if self.context_group is not None:
            key, value = gather_samples(torch.stack((key, value), dim=1), self.context_group).unbind(dim=1)
        chunks = self.part.chunks(key.shape[0])
        length = query.shape[0] // len(chunks)
        attended = []
        for index, place in enumerate(chunks):
            mine = slice(index * length, (index + 1) * length)
            seen = slice(0 if self.window is None else max(0, place.start - self.window + 1), place.stop)
            mask = None if attention_mask is None else attention_mask[:, :, mine, seen]
            attended.append(self._attend(query[mine], key[seen], value[seen], mask))
        return attended[0] if len(attended) == 1 else torch.cat(attended)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Attend to ``key``, the last of which stand where ``query`` stands.

        Shapes: query [q, b, n, d], key and value [k, b, g, d], mask bool [b, 1, q, k] -> [q, b, n x d].
        """
        length, batch, heads, size = query.shape
        dropout = self.dropout if self.training else 0.0
        if self.window is not None and self.window < key.shape[0]:
            near = window_mask(length, key.shape[0], self.window, query.device)
            mask = near if mask is None else mask & near
        elif mask is None and length < key.shape[0]:
            mask = causal_lower_right(length, key.shape[0])
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
        return attended.permute(2, 0, 1, 3).reshape(length, batch, heads * size)


@lru_cache(maxsize=8)
def window_mask(queries: int, keys: int, window: int, device: torch.device) -> Tensor:
    """Return bool [q, k]: whether a token (row) attends to another: itself and the w - 1 before it."""
    place = torch.arange(keys, device=device)
    distance = place[keys - queries :].unsqueeze(1) - place
    return (distance >= 0) & (distance < window)
