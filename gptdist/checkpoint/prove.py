"""Note at a checkpoint which samples come next, and compare at a resume; no torch."""

import hashlib
from pathlib import Path
from typing import Any

from gptdist.checkpoint.identity import changes
from gptdist.checkpoint.manifest import Manifest
from gptdist.checkpoint.proof import NextBatch, ResumeProof, SampleOrigin, SourcePosition, StepRecord
from gptdist.data.order import SampleOrder
from gptdist.data.sources import TrainingData
from gptdist.errors import CheckpointError

SHOWN_ORIGINS = 4
"""Samples of the next batch whose places are noted."""


def make_proof(
    data: TrainingData, *, attempt: int, consumed_samples: int, samples: int, steps: list[StepRecord]
) -> ResumeProof:
    """Return the proof of a checkpoint; reads the tokens of the next batch.

    Args:
        data: of the run.
        attempt: that saves.
        consumed_samples: samples that are done.
        samples: samples of the next step.
        steps: the last ones, oldest first.
    """
    return ResumeProof(
        attempt=attempt,
        sources=source_positions(data.order, consumed_samples),
        next_batch=NextBatch(
            first_sample=consumed_samples,
            samples=samples,
            origins=sample_origins(data.order, consumed_samples, min(samples, SHOWN_ORIGINS)),
            tokens_sha256=tokens_sha256(data, consumed_samples, samples),
        ),
        steps=tuple(steps),
    )


def source_positions(order: SampleOrder, consumed_samples: int) -> tuple[SourcePosition, ...]:
    """Return how far each source is read once ``consumed_samples`` are consumed."""
    positions = []
    for source, (name, taken) in enumerate(zip(order.names, order.mixture.counts_among(consumed_samples), strict=True)):
        epoch, window = order.window(source, taken)
        positions.append(SourcePosition(name=name, taken=taken, epoch=epoch, window=window))
    return tuple(positions)


def sample_origins(order: SampleOrder, first_sample: int, count: int) -> tuple[SampleOrigin, ...]:
    """Return where ``count`` samples come from."""
    origins = []
    for sample in range(first_sample, first_sample + count):
        source, number = order.mixture.locate(sample)
        epoch, window = order.window(source, number)
        origins.append(SampleOrigin(sample=sample, source=order.names[source], epoch=epoch, window=window))
    return tuple(origins)


def tokens_sha256(data: TrainingData, first_sample: int, count: int) -> str:
    """Return the hash of the tokens of ``count`` samples."""
    digest = hashlib.sha256()
    for sample in range(first_sample, first_sample + count):
        (row,) = data.rows(sample, 1)
        digest.update(row.astype("<u4").tobytes())
    return digest.hexdigest()


def check_same_samples(manifest: Manifest, config: dict[str, Any], data: TrainingData, where: str) -> None:
    """Refuse to go on where the order of samples, or their tokens, are not those that the checkpoint noted.

    Stages of ``data.stages`` that were not reached may change: what was consumed stays the same then.

    Raises:
        CheckpointError: names the first difference, was and now.
    """
    proof = manifest.progress.proof
    if proof is None:
        return
    batch, changed = proof.next_batch, order_changes(manifest.config, config)
    reason = f" ({'; '.join(changed)})" if changed else ""
    if batch.first_sample and manifest.config.get("seed") != config["seed"]:
        raise CheckpointError(
            f"{where}: {changed[0]}, so the samples of now would be others than the {batch.first_sample} that were "
            f"consumed, and windows would come twice or never; set it back, or set another run_dir"
        )
    _check_consumed(proof, data.order, where, reason)
    if not changed:  # else only what comes next is another, as a changed stage says
        _check_next(batch, data, where)


def _check_consumed(proof: ResumeProof, order: SampleOrder, where: str, reason: str) -> None:
    batch = proof.next_batch
    before = {one.name: one for one in proof.sources}
    now = {one.name: one for one in source_positions(order, batch.first_sample)}
    for name in sorted(before.keys() | now.keys()):
        was, found, none = before.get(name), now.get(name), f"none of '{name}'"
        if was != found and any(one is not None and one.taken for one in (was, found)):
            raise CheckpointError(
                f"{where}: the first {batch.first_sample} samples held {was or none}, and hold "
                f"{found or none} by the config of now{reason}, so windows would come twice or never; "
                f"set it back, give new weights as a stage of data.stages that begins at sample {batch.first_sample} "
                f"or later, or set another run_dir"
            )


def _check_next(batch: NextBatch, data: TrainingData, where: str) -> None:
    origins = sample_origins(data.order, batch.first_sample, len(batch.origins))
    for was, now in zip(batch.origins, origins, strict=True):
        if was != now:
            raise CheckpointError(
                f"{where}: sample {was.sample} was {was} and is now {now}, under an unchanged config; "
                f"use the version of gptdist that saved it, or set another run_dir"
            )
    found = tokens_sha256(data, batch.first_sample, batch.samples)
    if found != batch.tokens_sha256:
        raise CheckpointError(
            f"{where}: the tokens of samples {batch.first_sample} to {batch.first_sample + batch.samples - 1} had "
            f"sha256 {batch.tokens_sha256[:12]} and have now {found[:12]}; a shard has changed under its manifest, "
            f"see 'gptdist data verify', and restore the data"
        )


def order_changes(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return ``key: was → now`` of every key that decides which window a sample is."""
    found = [f"seed: {was.get('seed')} → {now.get('seed')}"] if was.get("seed") != now.get("seed") else []
    lengths = [tree.get("model", {}).get("seq_length") for tree in (was, now)]
    if lengths[0] != lengths[1]:
        found.append(f"model.seq_length: {lengths[0]} → {lengths[1]}")
    return found + changes(_order_keys(was), _order_keys(now), "data.")


def _order_keys(config: dict[str, Any]) -> dict[str, Any]:
    data = config.get("data", {})
    sources = {
        Path(source["path"]).absolute().name: {"weight": 1.0 if source.get("weight") is None else source["weight"]}
        for source in data.get("sources", [])
    }
    return {"sources": sources, "temperature": data.get("temperature"), "stages": data.get("stages")}
