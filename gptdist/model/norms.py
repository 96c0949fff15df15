"""Norms whose weights every tensor-parallel rank holds whole, and the sum of the gradients that each has a part of.

megatron-core adds such parts up after its own backward pass, which DeepSpeed's engine never calls. Here the sum is part
of autograd, so that every ZeRO stage has it.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from megatron.core.tensor_parallel.mappings import copy_to_tensor_model_parallel_region
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from gptdist.mesh.groups import Mesh
from gptdist.model.parameters import LORA_A, LORA_B

_USED_ON_A_RANKS_TOKENS = (
    *("input_layernorm.weight", "input_layernorm.bias", "pre_mlp_layernorm.weight", "pre_mlp_layernorm.bias"),
    *("final_layernorm.weight", "final_layernorm.bias"),
    *("self_attention.linear_proj.bias", "mlp.linear_fc2.bias", "mlp.router.weight"),
    *(f"self_attention.linear_qkv.{LORA_A}", f"mlp.linear_fc1.{LORA_A}"),
    *(f"self_attention.linear_proj.{LORA_B}", f"mlp.linear_fc2.{LORA_B}"),
)
"""Parameters that sequence parallelism applies to a part of the tokens on each rank, by the ends of their names."""


class Norm(nn.Module):
    """LayerNorm or RMSNorm over the last dimension; takes the place of megatron-core's."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        """Take megatron-core's arguments; ``hidden_size`` is the size of the last dimension."""
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.bias = nn.Parameter(torch.zeros(hidden_size)) if config.normalization == "LayerNorm" else None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` normalised."""
        return self._apply_to(x, self.weight, self.bias)

    def _apply_to(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if bias is None:
            return F.rms_norm(x, x.shape[-1:], weight, self.eps)
        return F.layer_norm(x, x.shape[-1:], weight, bias, self.eps)


class HeadNorm(Norm):
    """Norm of each head's queries or keys, with weights that all heads of all tensor-parallel ranks share.

    Communication: backward, over the tensor group, an all-reduce of a head's size for each weight.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` [s, b, n, d], the heads of this rank, normalised over d."""
        bias = None if self.bias is None else copy_to_tensor_model_parallel_region(self.bias)
        return self._apply_to(x, copy_to_tensor_model_parallel_region(self.weight), bias)


def sum_partial_gradients(model: nn.Module, mesh: Mesh) -> None:
    """Have gradients added up that sequence parallelism leaves in parts on the tensor-parallel ranks.

    Communication: backward, over the tensor group, an all-reduce of each such gradient.
    """

    def summed(gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total, group=mesh.tensor_group)
        return total

    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name.endswith(_USED_ON_A_RANKS_TOKENS):
            parameter.register_hook(summed)
