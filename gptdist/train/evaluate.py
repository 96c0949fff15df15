"""Validation loss, bits per byte and perplexity, the same numbers for every layout.

Nothing of the training is touched: no random numbers are drawn, and the model comes back in the mode it was in.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from gptdist.data.batches import Batch
from gptdist.data.rules import SampleRules
from gptdist.data.sources import ValidationSource
from gptdist.errors import DataError
from gptdist.mesh.groups import Mesh
from gptdist.train.pipeline import Stage

_LARGEST_EXPONENT = 709.0
"""e to this power is about the largest float."""


@dataclass(frozen=True)
class SourceEvaluation:
    """What was measured on one source or named set."""

    name: str
    loss: float
    """Mean cross-entropy, nats a token."""

    bits_per_byte: float
    """loss x tokens / ln 2 / UTF-8 bytes of the predicted tokens."""

    tokens: int
    text_bytes: int

    @property
    def perplexity(self) -> float:
        """e^loss."""
        return perplexity(self.loss)


@dataclass(frozen=True)
class Evaluation:
    """What was measured on all sources and named sets."""

    sources: tuple[SourceEvaluation, ...]
    """Training sources, then named sets."""

    loss: float
    """Losses of the training sources, weighted as they are in training; nats a token."""

    bits_per_byte: float
    """Weighted nats a token / ln 2 / weighted bytes a token."""

    def leading(self, validation_set: str | None) -> tuple[float, float]:
        """Return loss and bits per byte of the named set, or of the weighted sources."""
        if validation_set is None:
            return self.loss, self.bits_per_byte
        found = {one.name: one for one in self.sources}[validation_set]
        return found.loss, found.bits_per_byte

    def numbers(self, validation_set: str | None) -> dict[str, float]:
        """Return what the metrics hold, by name; ``validation_set`` is the set that leads, if not the sources."""
        loss, bits_per_byte = self.leading(validation_set)
        numbers = {"validation_loss": loss, "bits_per_byte": bits_per_byte, "perplexity": perplexity(loss)}
        for one in self.sources:
            numbers[f"loss_{one.name}"] = one.loss
            numbers[f"bits_per_byte_{one.name}"] = one.bits_per_byte
            numbers[f"perplexity_{one.name}"] = one.perplexity
        return numbers


class EvaluationStoppedError(Exception):
    """An evaluation was broken off, on every rank."""


def perplexity(loss: float) -> float:
    """Return e^loss of a mean cross-entropy in nats a token; infinite where no float is large enough."""
    return math.exp(loss) if loss < _LARGEST_EXPONENT else math.inf


@dataclass(frozen=True)
class EvaluationOptions:
    """How to measure; nothing of it changes the numbers but ``rules`` and ``token_bytes``."""

    micro_batch_size: int
    """Windows in one forward."""

    token_bytes: np.ndarray
    """UTF-8 bytes that each token id stands for."""

    device: torch.device
    """Where the model is."""

    rules: SampleRules = field(default_factory=SampleRules)
    """What to make of the tokens."""

    goes_on: Callable[[], bool] = lambda: True
    """Asked before each batch, and of one mind on all ranks."""


def evaluate(
    model: nn.Module | Stage, sources: list[ValidationSource], mesh: Mesh, options: EvaluationOptions
) -> Evaluation:
    """Measure ``model`` on all windows of ``sources``; replicas share the work. Collective: every rank calls it.

    Args:
        model: called as ``model(tokens, positions, mask, labels=labels)``; returns the mean loss, or 0
            on a stage of a pipeline that is not the last.
        sources: windows to predict; those with a weight make the loss of the whole.
        mesh: the ranks that take part.
        options: how.

    Raises:
        EvaluationStoppedError: ``options.goes_on`` said no, on every rank.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            found = tuple(_evaluate_source(model, source, mesh, options) for source in sources)
    finally:
        model.train(was_training)
    mixed = [(source.weight, one) for source, one in zip(sources, found, strict=True) if source.weight]
    loss = sum(weight * one.loss for weight, one in mixed)
    bytes_per_token = sum(weight * one.text_bytes / one.tokens for weight, one in mixed)
    return Evaluation(found, loss, loss / math.log(2) / bytes_per_token)


def _evaluate_source(
    model: nn.Module | Stage, source: ValidationSource, mesh: Mesh, options: EvaluationOptions
) -> SourceEvaluation:
    micro_batch_size, device = options.micro_batch_size, options.device
    count, replicas = len(source.first_tokens), mesh.layout.data_parallel_size
    stride = micro_batch_size * replicas
    totals = torch.zeros(3, dtype=torch.float64)
    for base in range(0, count, stride):
        if not options.goes_on():
            raise EvaluationStoppedError
        begin = base + mesh.place.dp_rank * micro_batch_size
        mine = max(0, min(micro_batch_size, count - begin))
        # A rank that has nothing left runs along on the first window: under ZeRO-3 a forward is a collective.
        rows = source.rows(begin, mine) if mine else source.rows(0, 1)
        batch = Batch.of(rows, device, options.rules, mesh.context_part)
        loss = model(batch.tokens, batch.positions(), batch.attention_mask(), labels=batch.labels)
        if mine:
            nats = loss.item() * batch.labels.numel()
            counted = batch.labels[batch.labels >= 0].cpu().numpy()
            text_bytes = int(options.token_bytes[counted].sum())
            totals += torch.tensor([nats, counted.size, text_bytes], dtype=torch.float64)
    if mesh.layout.num_copies > 1:
        summed = totals.to(device)
        dist.all_reduce(summed, group=mesh.copies_group)
        totals = summed.cpu()
    if mesh.layout.pipeline_parallel_size > 1:  # the last stage alone has the nats
        highest = totals.to(device)
        dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=mesh.pipeline_group)
        totals = highest.cpu()
    nats, tokens, text_bytes = totals.tolist()
    if not tokens or not text_bytes:
        raise DataError(
            f"{source.dataset.folder}: by data.loss_mask no token of its validation windows counts; mask less, or "
            f"raise data.eval_samples"
        )
    return SourceEvaluation(
        name=source.name,
        loss=nats / tokens,
        bits_per_byte=nats / math.log(2) / text_bytes,
        tokens=int(tokens),
        text_bytes=int(text_bytes),
    )
