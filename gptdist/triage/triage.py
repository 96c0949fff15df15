"""Everything about one step of a run: what happened, on which data, with which gradients, and the way back."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gptdist.data.attempts import Attempt, attempt_of_step, read_attempts
from gptdist.data.sources import TrainingData
from gptdist.data.trace import open_traced_data
from gptdist.errors import GptDistError
from gptdist.tokenizer.tokenizer import load_tokenizer
from gptdist.triage.samples import (
    FoundBatch,
    Losses,
    batch_of_dump,
    dumped_losses,
    find_samples,
    ordinary_samples,
    read_dump,
)
from gptdist.triage.timeline import Timeline, read_timeline
from gptdist.triage.way_back import WayBack, find_way_back

if TYPE_CHECKING:
    from gptdist.triage.gradients import BatchGradient, GradientProbe

ORDINARY_BATCHES = 3
"""Batches beside that of the step whose gradients are computed too."""


@dataclass(frozen=True)
class Options:
    """What to do beside reading records."""

    with_gradients: bool = True
    with_replay: bool = True
    device: str = "auto"
    attempt: int | None = None
    """Default: the newest that did the step."""


@dataclass(frozen=True)
class Gradients:
    """The gradient of the step's batch beside those of ordinary ones, all with the same weights."""

    checkpoint: Path
    weights_step: int
    """Steps that the weights have done."""

    replayed_from: int | None
    """Step of the checkpoint that a replay began with; None: the weights are the checkpoint's."""

    not_replayed: str
    """Why there was no replay; empty where there was, or nothing was to be replayed."""

    batch: "BatchGradient"
    ordinary: tuple["BatchGradient", ...]
    logged_grad_norm: float | None


@dataclass(frozen=True)
class Triage:
    """What was found."""

    run: Path
    timeline: Timeline
    batch: FoundBatch
    gradients: Gradients | None
    no_gradients: tuple[str, ...]
    """Why there are none."""

    way_back: WayBack

    @property
    def problems(self) -> tuple[str, ...]:
        """What the user has to mend to see everything."""
        return self.batch.problems


Say = Callable[[str], None]


def triage(run: Path, step: int, options: Options, say: Say) -> Triage:
    """Look at ``step`` of the run in folder ``run``, which is only read, and may be training.

    Args:
        run: its folder.
        step: as in the log.
        options: what to do beside reading records.
        say: tells what is about to take its time.

    Raises:
        DataError: there is no such run, or it did no such step.
    """
    attempts = read_attempts(run)
    attempt = attempt_of_step(run, attempts, step, options.attempt)
    timeline = read_timeline(run, attempts, attempt, step)
    samples, dump = attempt.samples_of_step(step), read_dump(run, attempt, step)
    way_back = find_way_back(run, attempt, timeline)
    gradients: Gradients | None = None
    reasons: tuple[str, ...] = ("--no-gradients",)
    try:
        data = open_traced_data(attempt.config, attempt.data_fingerprints)
        tokenizer = load_tokenizer(attempt.config.data.tokenizer)  # before minutes of gradients
    except GptDistError as error:
        return Triage(run, timeline, _without_data(error, dump, samples), None, error.problems, way_back)
    ordinary, losses = ordinary_samples(attempt, timeline.first_odd_step, step), dumped_losses(dump)
    if options.with_gradients:
        try:
            gradients, losses = _gradients(attempt, timeline, way_back, data, options, say=say, ordinary=ordinary)
            reasons = ()
        except GptDistError as error:
            reasons = error.problems
    try:
        batch = find_samples(data, tokenizer, samples, ordinary, losses)
    except GptDistError as error:
        batch = _without_data(error, dump, samples)
    return Triage(run, timeline, batch, gradients, reasons, way_back)


def _without_data(error: GptDistError, dump: Sequence[dict[str, object]], samples: Sequence[int]) -> FoundBatch:
    if not dump:
        return FoundBatch(samples[0], samples[-1], problems=error.problems)
    return replace(batch_of_dump(dump, samples), problems=error.problems)


def _gradients(
    attempt: Attempt,
    timeline: Timeline,
    way_back: WayBack,
    data: TrainingData,
    options: Options,
    *,
    say: Say,
    ordinary: Sequence[int],
) -> tuple[Gradients, Losses]:
    """Compute gradients and losses of samples with weights from before the trouble."""
    from gptdist.errors import CheckpointError

    if way_back.checkpoint is None:
        raise CheckpointError("; ".join(way_back.problems))
    from gptdist.checkpoint.read import CheckpointReader
    from gptdist.mesh.groups import destroy_mesh
    from gptdist.train.inference import single_process_mesh
    from gptdist.triage.gradients import GradientProbe
    from gptdist.triage.replay import replay, why_not

    step, config = timeline.step, attempt.config
    reader = CheckpointReader(way_back.checkpoint)
    begin = reader.manifest.step
    not_replayed, replayed_from = "", None
    with ExitStack() as stack:
        if begin < step - 1:
            not_replayed = why_not(attempt, reader, step - 1) or ("" if options.with_replay else "--no-replay")
            if not not_replayed:
                scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gptdist-triage-")))
                say(f"replaying steps {begin + 1} to {step - 1} in {scratch}")
                reader, replayed_from = CheckpointReader(replay(config, reader.folder, step - 1, scratch)), begin
        say(f"computing gradients with the weights of step {reader.manifest.step}")
        mesh = single_process_mesh()
        stack.callback(destroy_mesh)
        probe = GradientProbe(config, reader, data, mesh, options.device)
        gradients = Gradients(
            checkpoint=way_back.checkpoint,
            weights_step=reader.manifest.step,
            replayed_from=replayed_from,
            not_replayed=not_replayed,
            batch=probe.gradient(step, attempt.samples_of_step(step)),
            ordinary=_ordinary_batches(probe, attempt, timeline),
            logged_grad_norm=None if timeline.record is None else timeline.record.grad_norm,
        )
        losses = probe.losses(attempt.samples_of_step(step))
        usual = [loss for loss in probe.losses(ordinary).values() if loss is not None]
    return gradients, Losses(losses, f"the weights at step {reader.manifest.step}, without dropout", usual)


def _ordinary_batches(probe: "GradientProbe", attempt: Attempt, timeline: Timeline) -> tuple["BatchGradient", ...]:
    """Return the gradients of the steps right before the odd ones, or behind the step where the attempt has none."""
    first = timeline.first_odd_step
    steps = range(max(attempt.first_step + 1, first - ORDINARY_BATCHES), first)
    if not steps:
        steps = range(timeline.step + 1, timeline.step + 1 + ORDINARY_BATCHES)
    return tuple(probe.gradient(step, attempt.samples_of_step(step)) for step in steps)
