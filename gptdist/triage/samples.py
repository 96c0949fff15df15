"""The batch of a step as text, with the documents that it is made of, the oddest sample first; no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gptdist.data.attempts import Attempt
from gptdist.data.label_mask import token_ids
from gptdist.data.sources import TrainingData
from gptdist.data.trace import TracedSample, trace_samples
from gptdist.telemetry.ledger import LEDGER_NAME, read_json_lines
from gptdist.tokenizer.tokenizer import Tokenizer
from gptdist.triage.oddness import Oddness, Reading, measure

_WRITTEN_THEN = "the weights of then, as written when the step was skipped"
_OF_TEXT = ("loss", "odd_characters", "same_document")
"""Measures that a text alone has, without its tokens and without ordinary samples."""

ORDINARY_SAMPLES = 64
"""Samples of other steps that those of the step are compared with."""


@dataclass(frozen=True)
class Losses:
    """Loss of some samples, nats a label that counts, and of which weights."""

    of: Mapping[int, float | None]
    whose: str
    usual: Sequence[float] = ()
    """The same weights' losses of ordinary samples; empty where nobody measured these."""


@dataclass(frozen=True)
class FoundSample:
    """One sample of the batch."""

    sample: int
    source: str
    epoch: int | None
    documents: tuple[Mapping[str, Any], ...]
    """Where each part of it came from."""

    text: str
    oddness: Oddness


@dataclass(frozen=True)
class FoundBatch:
    """All samples of a step, the most suspicious first."""

    first_sample: int
    last_sample: int
    samples: tuple[FoundSample, ...] = ()
    loss_of: str = ""
    """Whose losses of samples are shown."""

    compared_with: int = 0
    """Ordinary samples that the measures are compared with."""

    problems: tuple[str, ...] = field(default=())
    """Why the batch is not shown, or not whole."""


def ordinary_samples(attempt: Attempt, first_step: int, last_step: int) -> list[int]:
    """Return samples of steps before ``first_step`` of the attempt, newest first; behind ``last_step`` where none is.

    Samples before those that the attempt began with may be what a rewind has passed over.
    """
    end, begin = attempt.first_sample(first_step), attempt.consumed_samples
    if end - begin < ORDINARY_SAMPLES // 2:
        behind = attempt.first_sample(last_step + 1)
        return list(range(behind, behind + ORDINARY_SAMPLES))
    return list(range(end - 1, max(begin, end - ORDINARY_SAMPLES) - 1, -1))


def find_samples(
    data: TrainingData, tokenizer: Tokenizer, samples: Sequence[int], ordinary: Sequence[int], losses: Losses
) -> FoundBatch:
    """Return the ``samples`` of a step, decoded, traced and compared with ``ordinary`` ones.

    Raises:
        DataError: a shard or its provenance cannot be read.
    """
    traced = trace_samples(data, samples)
    batch = [_reading(data, tokenizer, one.sample, one) for one in traced]
    beside = [_reading(data, tokenizer, sample) for sample in ordinary]
    odd = measure(batch, beside, [losses.of.get(one) for one in samples], losses.usual)
    found = [
        FoundSample(
            sample=one.sample,
            source=one.source,
            epoch=one.epoch,
            documents=tuple(asdict(part) for part in one.documents),
            text=reading.text,
            oddness=oddness,
        )
        for one, reading, oddness in zip(traced, batch, odd, strict=True)
    ]
    return FoundBatch(
        first_sample=samples[0],
        last_sample=samples[-1],
        samples=tuple(sorted(found, key=lambda one: one.oddness.suspicion, reverse=True)),
        loss_of=losses.whose,
        compared_with=len(beside),
    )


def _reading(data: TrainingData, tokenizer: Tokenizer, sample: int, traced: TracedSample | None = None) -> Reading:
    (row,) = data.rows(sample, 1)
    tokens = token_ids(row)
    digests = frozenset() if traced is None else frozenset(part.text_digest for part in traced.documents)
    return Reading(tokens, tokenizer.decode(tokens.tolist()), digests)


def read_dump(run: Path, attempt: Attempt, step: int) -> list[dict[str, Any]]:
    """Return what was written of the batch when the step was skipped; nothing where it was not, or the file is gone."""
    for event in read_json_lines(run / LEDGER_NAME):
        if (event.get("event"), event.get("attempt"), event.get("step")) == ("skip", attempt.number, step):
            return [one for one in read_json_lines(run / str(event["batch"])) if isinstance(one.get("sample"), int)]
    return []


def dumped_losses(dump: Sequence[Mapping[str, Any]]) -> Losses:
    """Return the losses that were measured when the step was skipped."""
    of = {one["sample"]: one["loss"] if isinstance(one["loss"], float) else None for one in dump}
    return Losses(of, _WRITTEN_THEN if dump else "")


def batch_of_dump(dump: Sequence[Mapping[str, Any]], samples: Sequence[int]) -> FoundBatch:
    """Return what the dump alone says of a batch whose data cannot be read any more; the highest loss first."""
    losses = dumped_losses(dump).of
    odd = measure([_undecoded(one) for one in dump], [], [losses[one["sample"]] for one in dump], [])
    found = [
        FoundSample(
            sample=one["sample"],
            source=str(one["source"]),
            epoch=one.get("epoch"),
            documents=tuple(one.get("documents", ())),
            text=str(one["text"]),
            oddness=Oddness({name: oddness.measures[name] for name in _OF_TEXT if name in oddness.measures}, {}),
        )
        for one, oddness in zip(dump, odd, strict=True)
    ]
    return FoundBatch(samples[0], samples[-1], tuple(found), loss_of=_WRITTEN_THEN)


def _undecoded(one: Mapping[str, Any]) -> Reading:
    digests = frozenset(str(part["text_digest"]) for part in one.get("documents", ()))
    return Reading(np.array([], dtype=np.int64), str(one["text"]), digests)
