"""How large a model is: numbers, zeros among them, and bytes on disk."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gptdist.compress.judge.subject import Subject

_QUANTIZER_PARTS = ("weight_scale", "weight_zero_point", "weight_shape", "weight_packed", "weight_g_idx")
"""What quantized layers hold beside their weight."""


@dataclass(frozen=True)
class ModelSize:
    """Counts of a model."""

    parameters: int
    """Tied weights once; scales of quantized weights are none."""

    nonzero_parameters: int
    weights_bytes: int
    """Of the safetensors files; of a checkpoint what its weights take in fp32."""


def measure_size(subject: Subject) -> ModelSize:
    """Count the weights of an opened model."""
    parameters = nonzero = 0
    for weight in _weights(subject.model):
        parameters += weight.numel()
        nonzero += int(torch.count_nonzero(weight))
    if subject.is_checkpoint:
        return ModelSize(parameters, nonzero, 4 * parameters)
    files = subject.path.glob("*.safetensors")
    return ModelSize(parameters, nonzero, sum(file.stat().st_size for file in files))


def _weights(model: Any) -> Iterator[Tensor]:
    """Yield each weight once, as plain numbers."""
    assert isinstance(model, nn.Module), "a transformers model is a module"
    for name, parameter in model.named_parameters():
        if not name.endswith(_QUANTIZER_PARTS):
            yield parameter.detach().dequantize() if _is_quantized(parameter) else parameter.detach()


def _is_quantized(parameter: Tensor) -> bool:
    """Whether it is a subclass that holds integers and scales, such as torchao's."""
    return type(parameter.data) is not Tensor and hasattr(parameter, "qdata")
