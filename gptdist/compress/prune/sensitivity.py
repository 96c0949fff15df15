"""How the loss grows when one part of one layer is pruned, and everything else stays."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gptdist.compress.as_checkpoint import opened_as_checkpoint
from gptdist.compress.calibration import CalibrationOptions
from gptdist.compress.prune.calibration_tokens import calibration_tokens
from gptdist.compress.prune.held_out import held_out_tokens
from gptdist.compress.prune.importance import Importance, ImportanceOptions, losses_without, measure_importance
from gptdist.compress.prune.layerwise import LayerInputs, Seen, linears, prune_matrix, watch
from gptdist.compress.prune.magnitude import MagnitudePruner
from gptdist.compress.prune.masks import lowest_of_all
from gptdist.compress.prune.measure import mean_loss
from gptdist.compress.prune.options import Method, WeightOptions
from gptdist.compress.prune.structure import loaded
from gptdist.config.model import ModelConfig
from gptdist.errors import ConfigError
from gptdist.model.gpt import LanguageModel

logger = logging.getLogger(__name__)

MATRICES = {"qkv": "linear_qkv", "proj": "linear_proj", "fc1": "linear_fc1", "fc2": "linear_fc2"}
"""Matrices of which single weights become zero, by the names of parts."""

PARTS = (*MATRICES, "neurons", "heads")
"""What is pruned of a layer; neurons and heads are silenced whole, the least important first."""


@dataclass(frozen=True)
class SensitivityOptions:
    """What is pruned, how far, and on which tokens it is measured."""

    parts: tuple[str, ...] = PARTS
    ratios: tuple[float, ...] = (0.25, 0.5, 0.75, 0.9)
    method: Method = "magnitude"
    """By which single weights become zero."""

    importance: ImportanceOptions = field(default_factory=ImportanceOptions)
    """By which neurons and heads are compared."""

    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    held_out_sequences: int = 32
    device: str = "auto"

    data: tuple[Path, ...] = ()
    """Dataset folders in place of the run's."""

    def problems(self) -> list[str]:
        """Return every value out of its range."""
        bad = self.calibration.problems()
        if self.held_out_sequences < 1:
            bad.append(f"--held-out-sequences: must be at least 1, got {self.held_out_sequences}")
        bad += [f"--ratios: must be above 0 and below 1, got {one:g}" for one in self.ratios if not 0.0 < one < 1.0]
        if not self.ratios:
            bad.append("--ratios: names none; name some, such as 0.25,0.5")
        if not self.parts:
            bad.append(f"--parts: names none; name some of {', '.join(PARTS)}")
        return bad + [
            f"--parts: {one} is none of {', '.join(PARTS)}; name some of these"
            for one in self.parts
            if one not in PARTS
        ]


@dataclass(frozen=True)
class Point:
    """One measurement."""

    layer: int
    part: str
    ratio: float
    """Share of the part's weights, neurons or heads that is gone; of these, so many as are whole."""

    loss: float
    """Nats a token, on held-out tokens."""


@dataclass(frozen=True)
class Sensitivity:
    """Losses of a model of which one part at a time is pruned."""

    model: str
    step: int
    method: str
    calibration: str
    """Which tokens were looked at."""

    held_out_tokens: int
    num_layers: int
    loss: float
    """Of the whole model, nats a token."""

    without_layer: list[float]
    """Without each layer, nats a token."""

    points: list[Point]

    @property
    def parts(self) -> list[str]:
        """Parts that were pruned, in their order; a model may have none of some."""
        return [part for part in PARTS if any(point.part == part for point in self.points)]

    def curve(self, layer: int, part: str) -> list[tuple[float, float]]:
        """Return ratios and losses of a part, from the whole model on."""
        found = sorted((point.ratio, point.loss) for point in self.points if (point.layer, point.part) == (layer, part))
        return [(0.0, self.loss), *found] if found else []

    def increase(self, layer: int, part: str, ratio: float) -> float | None:
        """Return what a part costs in loss, pruned to the measured share next to ``ratio``; none: no part."""
        found = self.curve(layer, part)[1:]
        return min(found, key=lambda one: abs(one[0] - ratio))[1] - self.loss if found else None

    def most_sensitive(self, ratio: float) -> list[int]:
        """Return layers by the mean increase over their parts at ``ratio``, the most sensitive first."""
        means = {}
        for layer in range(self.num_layers):
            found = [grown for part in self.parts if (grown := self.increase(layer, part, ratio)) is not None]
            means[layer] = sum(found) / max(1, len(found))
        return sorted(means, key=lambda layer: -means[layer])

    def tree(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"format": "gptdist-sensitivity", "version": 1, **asdict(self)}


def measure_sensitivity(source: Path, beside: Path, options: SensitivityOptions) -> Sensitivity:
    """Return how sensitive the layers of the model ``source`` are.

    Args:
        source: run, step folder or folder in the Hugging Face layout.
        beside: a folder on whose disk there is room for a copy of such a folder.
        options: what is pruned.

    Raises:
        CheckpointError: there is no model, or it is damaged or not finite.
        ConfigError: options are out of their range, or an expert got no token.
        DataError: a dataset is damaged or too short.
        ExportError: there is nothing to look at.
        ModelImportError: a folder's model has no counterpart here.
    """
    if problems := options.problems():
        raise ConfigError(problems)
    with opened_as_checkpoint(source, beside) as reader:
        manifest = reader.manifest
        config = ModelConfig.from_tree(manifest.config["model"], origin=str(reader.folder))
        looked_at, whence = calibration_tokens(source, manifest, options.data, options.calibration)
        held_out = held_out_tokens(source, manifest, options.data, options.calibration, options.held_out_sequences)
        with loaded(reader, options.device) as (model, _):
            importance = measure_importance(model, config, looked_at, options.importance)
            return Sensitivity(
                model=str(source),
                step=manifest.step,
                method=options.method,
                calibration=whence,
                held_out_tokens=held_out.size,
                num_layers=config.num_layers,
                loss=mean_loss(model, held_out),
                without_layer=losses_without(model, held_out).tolist(),
                points=list(_points(_Pruner(model, config, importance, options), looked_at, held_out)),
            )


@dataclass(frozen=True)
class _Part:
    """What is pruned of a layer."""

    name: str
    module: nn.Module
    """Whose weight is changed."""

    prune: Callable[[float], None]
    """Takes away a share, in place."""

    ratios: tuple[float, ...]
    """Shares that can be taken: of few heads not any."""


class _Pruner:
    """Prunes parts of a model for a while."""

    def __init__(
        self, model: LanguageModel, config: ModelConfig, importance: Importance, options: SensitivityOptions
    ) -> None:
        self.model, self.config, self.importance, self.options = model, config, importance, options

    def parts(self, layer: int, seen: Mapping[str, list[Seen]]) -> Iterator["_Part"]:
        """Yield a layer's parts."""
        modules = linears(self.model.decoder.layers[layer], f"decoder.layers.{layer}.")
        units = {"neurons": ("fc2", self.importance.ffn[layer]), "heads": ("proj", self.importance.heads[layer])}
        for part in self.options.parts:
            matrix, scores = units.get(part, (part, None))
            for name, module in modules.items():
                if not name.endswith(f"{MATRICES[matrix]}.weight") or (scores is not None and not len(scores)):
                    continue
                if scores is None:
                    yield _Part(part, module, partial(self._zero, name, module, seen), self.options.ratios)
                else:
                    counts = {round(ratio * len(scores)) for ratio in self.options.ratios} - {0}
                    ratios = tuple(count / len(scores) for count in sorted(counts))
                    yield _Part(part, module, partial(_silence, module, scores), ratios)

    def _zero(self, name: str, module: nn.Module, seen: Mapping[str, list[Seen]], ratio: float) -> None:
        options = WeightOptions(method=self.options.method, ratio=ratio)
        if name in seen:
            prune_matrix(name, module, seen[name], self.config, options)
        else:
            weight = _weight(module)
            weight.copy_(MagnitudePruner([name], lambda _: weight.clone(), self.config, options).pruned(name))


def _points(pruner: _Pruner, looked_at: np.ndarray, held_out: np.ndarray) -> Iterator[Point]:
    """Measure one layer after the other: what its matrices see is in memory, and nothing of the others."""
    model, options = pruner.model, pruner.options
    device = next(model.parameters()).device
    by_weights = options.method == "magnitude" or not set(options.parts) & set(MATRICES)
    with torch.no_grad():
        inputs = None if by_weights else LayerInputs.of(model, torch.from_numpy(looked_at).to(device))
        for number, layer in enumerate(model.decoder.layers):
            seen: dict[str, list[Seen]] = {}
            if inputs is not None:
                seen = watch(layer, linears(layer, f"decoder.layers.{number}."), inputs, WeightOptions(options.method))
            for part in pruner.parts(number, seen):
                for ratio in part.ratios:
                    with _restored(part.module):
                        part.prune(ratio)
                        loss = mean_loss(model, held_out)
                    yield Point(number, part.name, ratio, loss)
            if inputs is not None:
                inputs.through(layer)
            logger.info("layer %d of %d measured", number + 1, len(model.decoder.layers))


@contextmanager
def _restored(module: nn.Module) -> Iterator[None]:
    """Put a module's weights back at the end."""
    weight = _weight(module)
    before = weight.clone()
    try:
        yield
    finally:
        weight.copy_(before)


def _silence(module: nn.Module, scores: Tensor, ratio: float) -> None:
    """Have a matrix take nothing from the units of the lowest scores, the share ``ratio`` of them."""
    weight = _weight(module)
    gone = lowest_of_all(scores, ratio).to(weight.device)
    weight.view(weight.shape[0], len(scores), -1).masked_fill_(gone.view(1, -1, 1), 0.0)


def _weight(module: nn.Module) -> Tensor:
    weight: Tensor = module.weight.detach()  # type: ignore[operator]  # it is no module
    return weight


def ratio_to_show(ratios: Sequence[float]) -> float:
    """Return the ratio by which layers are compared: the one next to a half."""
    return min(ratios, key=lambda ratio: abs(ratio - 0.5))
