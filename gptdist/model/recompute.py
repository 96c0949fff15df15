"""Parts of layers whose activations are computed again in the backward pass."""

from typing import Any

from torch import nn

from gptdist.config.recomputation import Recomputed
from gptdist.model.experts import MixtureOfExperts
from gptdist.model.feed_forward import RecomputedMLP


def compute_again(layers: nn.ModuleList, again: Recomputed) -> None:
    """Let ``layers`` of a stage keep less of attention and of feed-forward parts."""
    layer: Any
    for index, layer in enumerate(layers):
        if index in again.attention:
            layer.self_attention.checkpoint_core_attention = True
        if index not in again.mlp:
            continue
        if isinstance(layer.mlp, MixtureOfExperts):
            layer.mlp.recomputes = True
        else:
            layer.mlp.__class__ = RecomputedMLP  # by its spec, a layer would build another class without its group
