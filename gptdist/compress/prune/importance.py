"""How much each unit of a model matters, by its activations over calibration tokens; forward passes alone.

Letters: n sequences, s sequence, b sequences at once, u units, h hidden, d head size, f feed-forward width, L layers.

Source: Muralidharan et al. 2024, "Compact Language Models via Pruning and Knowledge Distillation" (Minitron),
arXiv 2407.14679, section 2.2: activations of neurons, heads and norms, and the block influence of a layer, which is
Men et al. 2024, "ShortGPT", arXiv 2403.03853, equation 1. Section 4 there: L2 over sequences of means over tokens.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch.utils.hooks import RemovableHandle

from gptdist.compress.prune.measure import batches, layer_input, mean_loss, skipped
from gptdist.config.model import ModelConfig
from gptdist.errors import CheckpointError
from gptdist.model.gpt import LanguageModel

Aggregate = Literal["mean", "l2"]


@dataclass(frozen=True)
class ImportanceOptions:
    """How numbers of tokens become one of a unit."""

    over_tokens: Aggregate = "mean"
    """Of the sizes of a unit's activations in a sequence."""

    over_sequences: Aggregate = "l2"
    """Of those."""

    layers_by: Literal["influence", "loss"] = "influence"
    """A layer matters as much as it turns its input (1 - cosine), or as the loss grows without it."""


@dataclass(frozen=True)
class Importance:
    """How much units matter; numbers of one kind compare within it."""

    ffn: tuple[Tensor, ...]
    """Of each layer, [f]; of one with experts, or without feed-forward part, []."""

    heads: tuple[Tensor, ...]
    """Of each layer, [query heads]."""

    hidden: Tensor
    """[h], summed over the norms of all layers."""

    layers: Tensor
    """[L]"""


def measure_importance(
    model: LanguageModel, config: ModelConfig, rows: np.ndarray, options: ImportanceOptions
) -> Importance:
    """Return the importance of all units of a model in one process over the tokens ``rows`` [n, s].

    Raises:
        CheckpointError: activations are not finite.
    """
    seen = _Seen(config, options)
    with ExitStack() as hooks, torch.inference_mode():
        for handle in seen.watch(model):
            hooks.callback(handle.remove)
        hooks.callback(setattr, model.output_layer, "last_tokens", None)
        for tokens in batches(rows, model):
            positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
            # nobody asks for logits: those of one place a sequence cost next to nothing
            model.output_layer.last_tokens = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
            model(tokens, positions, None)
    found = seen.importance()
    if options.layers_by == "loss":
        found = Importance(found.ffn, found.heads, found.hidden, losses_without(model, rows) - mean_loss(model, rows))
    for kind, values in (("neurons", found.ffn), ("heads", found.heads), ("channels", [found.hidden, found.layers])):
        if not all(bool(torch.isfinite(one).all()) for one in values):
            raise CheckpointError(f"activations of {kind} are not finite; take weights from before they diverged")
    return found


def losses_without(model: LanguageModel, rows: np.ndarray) -> Tensor:
    """Return the loss of ``model`` without each of its layers, [L], nats a token."""
    losses = []
    for layer in model.decoder.layers:
        with skipped(layer):
            losses.append(mean_loss(model, rows))
    return torch.tensor(losses, dtype=torch.float64)


class _Total:
    """What one norm, matrix or layer has shown so far."""

    def __init__(self, options: ImportanceOptions) -> None:
        self._options = options
        self._sum: Tensor | None = None
        self._sequences = 0

    def add(self, sizes: Tensor) -> None:
        """Take in the sizes [s, b, u] of activations, none below 0."""
        sizes = sizes.double()
        each = sizes.mean(0) if self._options.over_tokens == "mean" else sizes.square().sum(0).sqrt()
        total = (each if self._options.over_sequences == "mean" else each.square()).sum(0)
        self._sum = total if self._sum is None else self._sum + total
        self._sequences += sizes.shape[1]

    def value(self) -> Tensor:
        """Return [u], or [] where nothing was shown."""
        if self._sum is None:
            return torch.zeros(0, dtype=torch.float64)
        found = self._sum / self._sequences if self._options.over_sequences == "mean" else self._sum.sqrt()
        return found.cpu()


class _Seen:
    """Hooks on a model, and what they have seen."""

    def __init__(self, config: ModelConfig, options: ImportanceOptions) -> None:
        self._config = config
        self._ffn, self._heads = ([_Total(options) for _ in range(config.num_layers)] for _ in range(2))
        self._norms: list[_Total] = []
        self._options = options
        influence = ImportanceOptions(over_tokens="mean", over_sequences="mean")
        self._influence = [_Total(influence) for _ in range(config.num_layers)]

    def watch(self, model: LanguageModel) -> Iterator[RemovableHandle]:
        for number, (layer, shape) in enumerate(zip(model.decoder.layers, self._config.shapes(), strict=True)):
            yield layer.register_forward_hook(self._turn(self._influence[number]), with_kwargs=True)
            if shape.heads:
                yield layer.self_attention.linear_proj.register_forward_pre_hook(self._norms_of_heads(number))
                yield self._watch_norm(layer.input_layernorm)
            if shape.ffn:
                yield self._watch_norm(layer.pre_mlp_layernorm)
            if shape.ffn and not self._config.has_experts(number):
                yield layer.mlp.linear_fc2.register_forward_pre_hook(self._sizes(self._ffn[number]))
        yield self._watch_norm(model.decoder.final_layernorm)

    def importance(self) -> Importance:
        return Importance(
            ffn=tuple(one.value() for one in self._ffn),
            heads=tuple(one.value() for one in self._heads),
            hidden=torch.stack([one.value() for one in self._norms]).sum(0),
            layers=torch.cat([one.value() for one in self._influence]),
        )

    def _watch_norm(self, norm: nn.Module) -> RemovableHandle:
        total = _Total(self._options)
        self._norms.append(total)
        return norm.register_forward_hook(lambda _, __, output: total.add(output.abs()))

    @staticmethod
    def _sizes(total: _Total) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, arguments: total.add(arguments[0].abs())

    def _norms_of_heads(self, number: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        size = self._config.head_size
        return lambda _, arguments: self._heads[number].add(arguments[0].unflatten(-1, (-1, size)).norm(dim=-1))

    @staticmethod
    def _turn(total: _Total) -> Callable[..., None]:
        def see(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: tuple[Any, ...]) -> None:
            before = layer_input(arguments, named)
            total.add(1.0 - cosine_similarity(before.double(), output[0].double(), dim=-1).unsqueeze(-1))

        return see
