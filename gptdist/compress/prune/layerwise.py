"""Prune a model layer by layer, each with the inputs that the layers before it, already pruned, give it.

Hidden states of all calibration sequences are in memory, and what is seen of one layer's inputs.

Letters: n sequences, s sequence, b sequences at once, h hidden, t tokens, i inputs of a matrix.

Source: arXiv 2301.00774, section 4 ("Setup"), and arXiv 2306.11695, section 3: one layer after the other.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gptdist.compress.prune.options import WeightOptions
from gptdist.compress.prune.sparsegpt import InputProducts
from gptdist.compress.prune.wanda import InputNorms
from gptdist.config.model import ModelConfig
from gptdist.errors import CheckpointError, ConfigError
from gptdist.model.experts import GroupedLinear
from gptdist.model.gpt import LanguageModel
from gptdist.model.parameters import is_hidden_matrix, matrices_of

logger = logging.getLogger(__name__)

TOKENS_AT_ONCE = 4096
"""Of one forward pass of a layer, unless a sequence is longer."""


class Seen(Protocol):
    """What a method remembers of one matrix's inputs."""

    tokens: int

    @property
    def is_finite(self) -> bool:
        """Whether everything that was seen is."""

    def add(self, x: Tensor) -> None:
        """See more tokens, [t, i]."""

    def prune(self, matrix: Tensor, options: WeightOptions) -> Tensor:
        """Return ``matrix`` with zeros."""


@dataclass
class LayerInputs:
    """Hidden states before a layer, of all sequences."""

    model: LanguageModel
    hidden: list[Tensor]
    """[s, b, h] each."""

    rotary: Tensor | None

    @classmethod
    def of(cls, model: LanguageModel, tokens: Tensor) -> "LayerInputs":
        """Return what the first layer is given for ``tokens`` [n, s]."""
        length = tokens.shape[1]
        positions = torch.arange(length, device=tokens.device)
        parts = tokens.split(max(1, TOKENS_AT_ONCE // length))
        hidden = [model.embedding(input_ids=part, position_ids=positions.expand_as(part)) for part in parts]
        rotary = None if model.position_embedding_type != "rope" else model.rotary_pos_emb(length)
        return cls(model, hidden, rotary)

    def through(self, layer: nn.Module, *, keeps_inputs: bool = False) -> None:
        """Put all sequences through ``layer``; its outputs take the place of its inputs unless these are kept."""
        for index, hidden in enumerate(self.hidden):
            output = layer(hidden_states=hidden, attention_mask=None, rotary_pos_emb=self.rotary)[0]
            if not keeps_inputs:
                self.hidden[index] = output


def prune_layers(
    model: LanguageModel, config: ModelConfig, tokens: Tensor, names: set[str], options: WeightOptions
) -> None:
    """Prune the matrices ``names`` of ``model`` in place, by what the calibration ``tokens`` [n, s] make them see.

    Raises:
        CheckpointError: activations are not finite.
        ConfigError: an expert got no token.
    """
    with torch.no_grad():
        inputs = LayerInputs.of(model, tokens)
        layers = list(model.decoder.layers)
        last = max(index for index in range(len(layers)) if any(f".layers.{index}." in name for name in names))
        for index, layer in enumerate(layers[: last + 1]):
            prefix = f"decoder.layers.{index}."
            chosen = {name: module for name, module in linears(layer, prefix).items() if name in names}
            if chosen:
                seen = watch(layer, chosen, inputs, options)
                for name, module in chosen.items():
                    prune_matrix(name, module, seen[name], config, options)
                logger.info("layer %d of %d: %d matrices pruned", index, len(layers), len(chosen))
            if index < last:
                inputs.through(layer)


def linears(layer: nn.Module, prefix: str) -> dict[str, nn.Module]:
    """Return the modules of a layer that hold hidden matrices, by the name of the matrix in the whole model."""
    found = {f"{prefix}{name}.weight": module for name, module in layer.named_modules() if hasattr(module, "weight")}
    return {name: module for name, module in found.items() if is_hidden_matrix(name)}


def watch(
    layer: nn.Module, chosen: Mapping[str, nn.Module], inputs: LayerInputs, options: WeightOptions
) -> dict[str, list[Seen]]:
    """Return what each matrix of each module sees of all sequences, which stay before the layer.

    Args:
        layer: of the model.
        chosen: its modules, by the name of their matrix.
        inputs: hidden states before the layer.
        options: by which method.

    Raises:
        CheckpointError: inputs are not finite.
        ConfigError: an expert got no token.
    """
    kind = InputNorms if options.method == "wanda" else InputProducts
    seen: dict[str, list[Seen]] = {}
    with ExitStack() as hooks:
        for name, module in chosen.items():
            weight: Tensor = module.weight  # type: ignore[assignment]  # a module's attribute may also be a module
            count = weight.shape[0] if isinstance(module, GroupedLinear) else 1
            seen[name] = [kind(weight.shape[-1], weight.device) for _ in range(count)]
            handle = module.register_forward_pre_hook(_noting(seen[name]))
            hooks.callback(handle.remove)
        inputs.through(layer, keeps_inputs=True)
    for name, each in seen.items():
        _check(name, each)
    return seen


def _noting(seen: list[Seen]) -> Any:
    def note(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        x = arguments[0]
        rows = arguments[1] if isinstance(module, GroupedLinear) else [x.shape[:-1].numel()]
        for one, part in zip(seen, x.reshape(-1, x.shape[-1]).split(rows), strict=True):
            one.add(part)

    return note


def _check(name: str, seen: list[Seen]) -> None:
    if not all(one.is_finite for one in seen):
        raise CheckpointError(
            f"{name}: its inputs of the calibration sequences are not finite; take weights from before they diverged"
        )
    empty = [str(index) for index, one in enumerate(seen) if not one.tokens]
    if empty:
        raise ConfigError(
            [
                f"--calibration-sequences: no token came to {len(empty)} of {len(seen)} experts of {name} (such as "
                f"{empty[0]}); take more, or leave the layer out: --skip-layers"
            ]
        )


def prune_matrix(name: str, module: nn.Module, seen: list[Seen], config: ModelConfig, options: WeightOptions) -> None:
    """Make weights of a module zero in place, by what its matrices have ``seen``."""
    weight: Tensor = module.weight  # type: ignore[assignment]  # a module's attribute may also be a module
    for one, matrix in zip(seen, _stacked(weight), strict=True):
        for part in matrices_of(matrix, name, config):
            rows = part.reshape(-1, part.shape[-1])
            part.copy_(one.prune(rows, options).view(part.shape))


def _stacked(weight: Tensor) -> Iterator[Tensor]:
    """Yield the matrices of a parameter: one, or one for each expert."""
    yield from weight.unbind(0) if weight.dim() > 2 else (weight,)
