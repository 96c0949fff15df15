"""Losses of a model in memory, whole, cut, or with a part silenced.

Letters: n sequences, s sequence, b sequences at once, h hidden.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gptdist.compress.prune.slicing import Kept, pruned_config, pruned_tensors
from gptdist.config.model import ModelConfig
from gptdist.mesh.groups import Mesh
from gptdist.model.gpt import LanguageModel, transformer_config
from gptdist.model.parameters import VOCABULARY_TENSORS

TOKENS_AT_ONCE = 8192
"""Of one forward pass, unless a sequence is longer."""


def batches(rows: np.ndarray, model: nn.Module) -> Iterator[Tensor]:
    """Yield token ids [n, s] in parts [b, s], on the model's device."""
    device = next(model.parameters()).device
    tokens = torch.from_numpy(rows).to(device)
    yield from tokens.split(max(1, TOKENS_AT_ONCE // rows.shape[1]))


def mean_loss(model: LanguageModel, rows: np.ndarray) -> float:
    """Return the mean cross-entropy of each token of ``rows`` [n, s] but the first of a row, in nats."""
    total = 0.0
    with torch.inference_mode():
        for part in batches(rows, model):
            tokens, labels = part[:, :-1], part[:, 1:].contiguous()
            positions = torch.arange(tokens.shape[1], device=part.device).expand_as(tokens)
            total += model(tokens, positions, None, labels=labels).item() * len(part)
    return total / len(rows)


def sliced_model(whole: LanguageModel, config: ModelConfig, kept: Kept, mesh: Mesh) -> LanguageModel:
    """Return what stays of a model, in fp32, beside it in memory.

    Args:
        whole: the model in one process.
        config: its config.
        kept: what stays.
        mesh: of this process alone.

    Raises:
        ConfigError: no model has this shape.
    """
    child = pruned_config(config, kept)
    parameters = dict(whole.named_parameters())
    device = next(whole.parameters()).device

    def get(name: str) -> Tensor:
        values = parameters[name].detach()
        return values[: config.vocab_size] if name in VOCABULARY_TENSORS else values

    network = LanguageModel(child, transformer_config(child, mesh, torch.float32), mesh).to(device).eval()
    targets = dict(network.named_parameters())
    with torch.no_grad():
        for name, tensor in pruned_tensors(config, kept, get):
            targets[name].zero_()  # rows of padding stay so
            targets[name][: tensor.shape[0]] = tensor
    return network


@contextmanager
def skipped(layer: nn.Module) -> Iterator[None]:
    """Have a megatron-core layer pass the residual stream on as it came."""

    def pass_on(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: tuple[Any, ...]) -> Any:
        return (layer_input(arguments, named), *output[1:])

    handle = layer.register_forward_hook(pass_on, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def layer_input(arguments: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
    """Return the hidden states [s, b, h] that a megatron-core layer was called with."""
    found: Tensor = named["hidden_states"] if "hidden_states" in named else arguments[0]
    return found
