"""Validation loss and bits per byte, the same number for every layout."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from gptdist.data.batches import Batch
from gptdist.data.rules import SampleRules
from gptdist.data.sources import ValidationSource
from gptdist.errors import DataError
from gptdist.mesh.groups import Mesh

_ALL_COUNTS = SampleRules()


@dataclass(frozen=True)
class SourceEvaluation:
    """What was measured on one source."""

    name: str
    loss: float
    """Mean cross-entropy, nats a token."""

    bits_per_byte: float
    """loss x tokens / ln 2 / UTF-8 bytes of the predicted tokens."""

    tokens: int
    text_bytes: int


@dataclass(frozen=True)
class Evaluation:
    """What was measured on all sources."""

    sources: tuple[SourceEvaluation, ...]
    loss: float
    """Losses of the sources, weighted as they are in training; nats a token."""

    bits_per_byte: float
    """Weighted nats a token / ln 2 / weighted bytes a token."""


def evaluate(
    model: nn.Module,
    sources: list[ValidationSource],
    mesh: Mesh,
    *,
    micro_batch_size: int,
    token_bytes: np.ndarray,
    device: torch.device,
    rules: SampleRules = _ALL_COUNTS,
) -> Evaluation:
    """Measure ``model`` on all validation windows; replicas share the work. Collective: every rank calls it.

    Args:
        model: called as ``model(tokens, positions, mask, labels=labels)``; returns the mean loss.
        sources: windows to predict.
        mesh: the ranks that take part.
        micro_batch_size: windows in one forward.
        token_bytes: UTF-8 bytes that each token id stands for.
        device: where the model is.
        rules: what to make of the tokens.
    """
    was_training = model.training
    model.eval()
    with torch.no_grad():
        found = tuple(
            _evaluate_source(
                model,
                source,
                mesh,
                micro_batch_size,
                token_bytes=token_bytes,
                device=device,
                rules=rules,
            )
            for source in sources
        )
    model.train(was_training)
    loss = sum(source.weight * one.loss for source, one in zip(sources, found, strict=True))
    bytes_per_token = sum(
        source.weight * one.text_bytes / one.tokens for source, one in zip(sources, found, strict=True)
    )
    return Evaluation(found, loss, loss / math.log(2) / bytes_per_token)


def _evaluate_source(
    model: nn.Module,
    source: ValidationSource,
    mesh: Mesh,
    micro_batch_size: int,
    *,
    token_bytes: np.ndarray,
    device: torch.device,
    rules: SampleRules,
) -> SourceEvaluation:
    count, replicas = len(source.first_tokens), mesh.layout.data_parallel_size
    stride = micro_batch_size * replicas
    totals = torch.zeros(3, dtype=torch.float64)
    for base in range(0, count, stride):
        begin = base + mesh.place.dp_rank * micro_batch_size
        mine = max(0, min(micro_batch_size, count - begin))
        # A rank that has nothing left runs along on the first window: under ZeRO-3 a forward is a collective.
        rows = source.rows(begin, mine) if mine else source.rows(0, 1)
        batch = Batch.of(rows, device, rules)
        loss = model(batch.tokens, batch.positions(), batch.attention_mask(), labels=batch.labels)
        if mine:
            nats = loss.item() * batch.labels.numel()
            counted = batch.labels[batch.labels >= 0].cpu().numpy()
            text_bytes = int(token_bytes[counted].sum())
            totals += torch.tensor([nats, counted.size, text_bytes], dtype=torch.float64)
    if replicas > 1:
        summed = totals.to(device)
        dist.all_reduce(summed, group=mesh.data_group)
        totals = summed.cpu()
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
