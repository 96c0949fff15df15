"""The gradient of a step's batch once more, by layer and part, beside that of ordinary batches; one process.

What is computed is the step's own gradient: the same groups of samples in a forward pass, the same dropout, masks and
sequence lengths, as a mean over the labels that count. Only the number format is fp32 whatever the run's is, and the
weights are those of the checkpoint.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gptdist.checkpoint.load import load_weights
from gptdist.checkpoint.read import CheckpointReader
from gptdist.config.memory import MemoryConfig
from gptdist.config.parallel import ParallelConfig
from gptdist.config.run import RunConfig
from gptdist.data.batches import Batch, cut_rows
from gptdist.data.rules import LossMask, SampleRules
from gptdist.data.sources import TrainingData
from gptdist.device.device import Device, choose_device
from gptdist.errors import TrainingError
from gptdist.mesh.groups import Mesh
from gptdist.model.gpt import LanguageModel
from gptdist.model.parameters import layer_of, local_parameters
from gptdist.tokenizer.tokenizer import load_tokenizer
from gptdist.train.build import build_model
from gptdist.train.randomness import seed_micro_batch

_PARTS = (("attention", "self_attention"), ("mlp", "mlp"))


@dataclass(frozen=True)
class BatchGradient:
    """The gradient of one global batch."""

    step: int
    first_sample: int
    samples: int
    loss: float
    """Mean over the labels that count, nats; what the trainer would log."""

    grad_norm: float
    """L2 norm over all parameters, before clipping."""

    by_part: dict[str, float]
    """The same over the parameters of each part, in the model's order."""


class GradientProbe:
    """A model with a checkpoint's weights, and what a run does with its samples."""

    def __init__(
        self, config: RunConfig, reader: CheckpointReader, data: TrainingData, mesh: Mesh, device: str
    ) -> None:
        """Load the weights.

        Raises:
            CheckpointError: the checkpoint's tensors are not those of the config.
            TokenizerError: the run's tokenizer is gone.
            TrainingError: the run learns from a teacher.
        """
        if config.distillation is not None:
            raise TrainingError(
                f"{reader.folder}: the run learns from a teacher, whose answers are part of its gradient and are not "
                f"computed here; leave gradients out by --no-gradients"
            )
        alone = {"parallel": ParallelConfig(), "memory": _memory_alone(config)}
        self._config, self._data, self._mesh = config.model_copy(update=alone), data, mesh
        chosen = choose_device(device, "fp32", local_rank=0)
        self._device: Device = chosen
        self._rules = SampleRules.of(config.data, load_tokenizer(config.data.tokenizer))
        self._model: LanguageModel = build_model(self._config, mesh, chosen)
        self._locals = list(local_parameters(self._model, config.model, tensor_parallel_size=1, tp_rank=0))
        load_weights(reader.unmerged(), self._locals)
        # megatron-core asks for a seeded generator even where nothing is dropped, and losses may come first.
        seed_micro_batch(config.seed, 0, mesh.place)

    def gradient(self, step: int, samples: Sequence[int]) -> BatchGradient:
        """Return the gradient of the batch of ``step``; its samples come one after the other."""
        config, size, first = self._config, self._config.batch.micro_batch_size, samples[0]
        seq_length, factor, count = config.seq_lengths.at(first), self._factor(samples), len(samples) // size
        self._model.train()
        self._model.zero_grad(set_to_none=True)
        total = 0.0
        for begin in range(first, first + len(samples), size):
            batch = self._batch(begin, size, seq_length)
            seed_micro_batch(config.seed, begin, self._mesh.place)
            loss = self._loss(batch) * factor
            total += loss.detach().double().item()
            (loss / count).backward()
        squares = {local.logical.name: _square(local.parameter.grad) for local in self._locals}
        self._model.zero_grad(set_to_none=True)
        by_part: dict[str, float] = {}
        for name, square in squares.items():
            by_part[part_of(name)] = by_part.get(part_of(name), 0.0) + square
        return BatchGradient(
            step=step,
            first_sample=first,
            samples=len(samples),
            loss=total / count,
            grad_norm=math.sqrt(math.fsum(squares.values())),
            by_part={part: math.sqrt(square) for part, square in by_part.items()},
        )

    def losses(self, samples: Sequence[int]) -> dict[int, float | None]:
        """Return the loss of each sample without dropout, nats a label that counts; None where none counts."""
        found: dict[int, float | None] = {}
        self._model.eval()
        with torch.no_grad():
            for sample in samples:
                batch = self._batch(sample, 1, self._config.seq_lengths.at(samples[0]))
                counted = int((batch.labels >= 0).sum())
                loss = self._loss(batch).item() * batch.labels.numel()
                found[sample] = loss / counted if counted else None
        return found

    def _batch(self, first: int, count: int, seq_length: int) -> Batch:
        rows = cut_rows(self._data.rows(first, count), seq_length)
        return Batch.of(rows, self._device.torch_device, self._rules)

    def _loss(self, batch: Batch) -> torch.Tensor:
        loss: torch.Tensor = self._model(batch.tokens, batch.positions(), batch.attention_mask(), labels=batch.labels)
        return loss

    def _factor(self, samples: Sequence[int]) -> float:
        """Return all labels of the batch over those that count, as the trainer weighs micro batches."""
        if self._rules.loss_mask is None and not self._data.has_masks:
            return 1.0
        mask = self._rules.loss_mask or LossMask()
        counted = sum(mask.num_counted(np.stack(self._data.rows(sample, 1))) for sample in samples)
        if not counted:
            raise TrainingError(f"samples {samples[0]} to {samples[-1]}: no label counts, so there is no gradient")
        return len(samples) * self._config.model.seq_length / counted


def _memory_alone(config: RunConfig) -> MemoryConfig:
    """Return how one process computes: layers again where the run does so of any, nothing offloaded."""
    return MemoryConfig(recompute="none" if config.memory.recompute == "none" else "full")


def _square(gradient: torch.Tensor | None) -> float:
    if gradient is None:
        return 0.0
    # Rows first: in one go, fp32 loses digits.
    return float(torch.linalg.vector_norm(gradient, dim=-1).double().square().sum())


def part_of(name: str) -> str:
    """Return the layer and part that a parameter belongs to, such as ``layer 3 mlp``."""
    if not re.match(r"decoder\.layers\.\d+\.", name):
        return "embedding" if name.startswith("embedding.") else "head" if "output_layer" in name else "final norm"
    parts = (part for part, word in _PARTS if f".{word}." in name)
    return f"layer {layer_of(name)} {next(parts, 'norms')}"
