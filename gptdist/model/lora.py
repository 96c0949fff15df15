"""Low-rank adapters on megatron-core's linear layers, split over tensor-parallel ranks as these are.

Of a matrix whose rows are split (``qkv``, ``fc1``) each rank has A whole and its rows of B; of one whose columns are
split (``proj``, ``fc2``) its columns of A and B whole. What ranks exchange has r values a token.

Letters: s sequence, b batch, r rank of the adapters, t tensor-parallel size.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)
from torch import Tensor, nn

from gptdist.config.lora import LoraConfig
from gptdist.model.parameters import LORA_A, LORA_B, logical_shape_of, split_dim

_LAYERS = {
    "qkv": ("self_attention", "linear_qkv"),
    "proj": ("self_attention", "linear_proj"),
    "fc1": ("mlp", "linear_fc1"),
    "fc2": ("mlp", "linear_fc2"),
}
_ROWS_SPLIT = ("qkv", "fc1")


def add_adapters(model: Any, config: LoraConfig, *, tensor_parallel_size: int) -> None:
    """Freeze all weights of a stage's ``model``, and add adapters without values to the chosen ones.

    Args:
        model: this rank's part.
        config: what to add.
        tensor_parallel_size: ranks that share each matrix.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    sequence_parallel = bool(model.config.sequence_parallel)
    for layer in model.decoder.layers:
        for target in config.targets:
            part, name = _LAYERS[target]
            linear = getattr(getattr(layer, part), name, None)
            if linear is not None:  # a layer may lack the part
                _add(linear, config, rows_split=target in _ROWS_SPLIT, sequence_parallel=sequence_parallel)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.tensor_model_parallel = split_dim(name) is not None and tensor_parallel_size > 1
    if model.pre_process:
        # What is computed again in the backward pass has a gradient only if its input asks for one.
        model.embedding.register_forward_hook(_ask_for_gradient)


def _add(linear: Any, config: LoraConfig, *, rows_split: bool, sequence_parallel: bool) -> None:
    rows, columns = logical_shape_of(linear.weight)
    where = {"dtype": linear.weight.dtype, "device": linear.weight.device}
    linear.register_parameter(LORA_A, nn.Parameter(torch.empty(config.rank, columns, **where)))
    linear.register_parameter(LORA_B, nn.Parameter(torch.empty(rows, config.rank, **where)))
    between = _between(rows_split=rows_split, sequence_parallel=sequence_parallel)
    scale = config.scale

    def adapt(module: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
        narrow = between(F.linear(inputs[0], module.lora_a))
        return output[0] + scale * F.linear(narrow, module.lora_b), output[1]

    linear.register_forward_hook(adapt)


def _between(*, rows_split: bool, sequence_parallel: bool) -> Callable[[Tensor], Tensor]:
    """Return what ranks do between both factors, so that each factor's gradient is whole where the factor is.

    Under sequence parallelism the factor that is whole on every rank sees a part of the tokens; see
    ``norms.sum_partial_gradients``.

    Communication: over the tensor group, for each token r values forward and r backward: an all-reduce in one
    direction, or under sequence parallelism an all-gather in one and a reduce-scatter in the other.
    """
    if rows_split:
        return gather_from_sequence_parallel_region if sequence_parallel else copy_to_tensor_model_parallel_region
    return reduce_scatter_to_sequence_parallel_region if sequence_parallel else reduce_from_tensor_model_parallel_region


def _ask_for_gradient(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output.requires_grad_() if torch.is_grad_enabled() else output
