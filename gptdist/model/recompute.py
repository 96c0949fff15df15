"""Parts of layers whose activations are computed again in the backward pass."""

from typing import Any

from megatron.core.transformer.identity_op import IdentityOp
from torch import nn

from gptdist.config.recomputation import Recomputed
from gptdist.model.experts import MixtureOfExperts
from gptdist.model.feed_forward import RecomputedMLP


def compute_again(layers: nn.ModuleList, again: Recomputed) -> None:
    """Let ``layers`` of a stage keep less of attention and of feed-forward parts."""
    layer: Any
    for index, layer in enumerate(layers):
        if index in again.attention and not isinstance(layer.self_attention, IdentityOp):
            layer.self_attention.checkpoint_core_attention = True
        if index not in again.mlp or isinstance(layer.mlp, IdentityOp):
            continue
        if isinstance(layer.mlp, MixtureOfExperts):
            layer.mlp.recomputes = True
        else:
            layer.mlp.__class__ = RecomputedMLP  # by its spec, a layer would build another class without its group
