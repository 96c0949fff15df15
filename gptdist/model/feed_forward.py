"""The feed-forward part of a layer whose inner activations are computed again in the backward pass."""

from typing import Any

import torch
from megatron.core import tensor_parallel
from megatron.core.transformer.mlp import MLP
from torch import Tensor


class RecomputedMLP(MLP):
    """megatron-core's MLP, of which only the input is kept.

    megatron-core's own switch for it returns the last bias from a checkpointed function, which makes the parameter an
    output of that function, and the second backward pass never ends.
    """

    def forward(self, hidden_states: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
        """Return the output and the last bias, which is still to be added."""
        if not (self.training and torch.is_grad_enabled()):
            output, bias = super().forward(hidden_states, *arguments, **options)
            return output, bias

        def run(x: Tensor) -> Tensor:
            inner: Tensor = MLP.forward(self, x, *arguments, **options)[0]
            return inner

        return tensor_parallel.checkpoint(run, False, hidden_states), self.linear_fc2.bias
