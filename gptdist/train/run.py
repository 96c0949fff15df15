"""What a training run consists of, once built."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from gptdist.checkpoint.after_commit import Keeper
from gptdist.checkpoint.fragments import OptimizerFragments
from gptdist.checkpoint.identity import RunIdentity
from gptdist.checkpoint.manifest import LowestLoss, Progress, SourceRecord
from gptdist.checkpoint.proof import StepRecord, kept_steps
from gptdist.checkpoint.saver import Saver
from gptdist.config.run import RunConfig
from gptdist.data.rules import SampleRules
from gptdist.data.sources import TrainingData, ValidationSource
from gptdist.device.device import Device
from gptdist.mesh.groups import Mesh
from gptdist.model.parameters import LocalParameter
from gptdist.telemetry.clock import StepClock
from gptdist.telemetry.heartbeat import Heartbeat
from gptdist.telemetry.ledger import Ledger
from gptdist.telemetry.metrics import Metrics
from gptdist.train.distillation import Distillation
from gptdist.train.engine import Engine
from gptdist.train.guards import GuardState, Refusal
from gptdist.train.sampler import Sampler
from gptdist.train.stop_signal import StopReason, StopSignal


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step yielded; the same on every rank."""

    loss: float
    """Mean over the global batch, nats a token."""

    grad_norm: float | None
    lr: float
    samples: int
    stopping: StopReason
    """Why any rank was asked to stop, if one was."""

    refusal: Refusal | None = None
    """Why the weights were left as they are, if they were."""

    def finite_numbers(self) -> dict[str, float | None]:
        """Return loss and gradient norm for a record, in which there is no word for what is not finite."""
        numbers = {"loss": self.loss, "grad_norm": self.grad_norm}
        return {name: value if value is not None and math.isfinite(value) else None for name, value in numbers.items()}


@dataclass
class Stopwatch:
    """Work done since the last line of the log."""

    begin: float = field(default_factory=time.perf_counter)
    samples: int = 0
    steps: int = 0

    def restart(self) -> None:
        """Begin again from zero."""
        self.begin, self.samples, self.steps = time.perf_counter(), 0, 0


@dataclass
class TrainState:
    """How far the run is; everything else follows from it and the config."""

    step: int = 0
    consumed_samples: int = 0
    loss: float | None = None
    validation_loss: float | None = None
    validation_step: int | None = None
    lowest: LowestLoss | None = None
    guards: GuardState = field(default_factory=GuardState)
    initial_weights: SourceRecord | None = None
    zeros: dict[str, int] = field(default_factory=dict)
    """How many weights of each linear matrix are held at zero."""

    recent: list[StepRecord] = field(default_factory=list)
    """Steps for the next checkpoint's proof."""

    saved_step: int = 0
    """Step of the newest checkpoint."""

    saved_by: int | None = None
    """Attempt that saved the checkpoint which this goes on from."""

    since: Stopwatch = field(default_factory=Stopwatch)

    @classmethod
    def of(cls, progress: Progress) -> Self:
        """Return the state that a checkpoint was taken in."""
        return cls(
            step=progress.step,
            consumed_samples=progress.consumed_samples,
            loss=progress.loss,
            validation_loss=progress.validation_loss,
            validation_step=progress.validation_step,
            lowest=progress.lowest,
            guards=GuardState.of(progress.guards),
            initial_weights=progress.initial_weights,
            zeros=dict(progress.zeros),
            recent=[] if progress.proof is None else list(progress.proof.steps),
            saved_step=progress.step,
            saved_by=None if progress.proof is None else progress.proof.attempt,
        )

    def advance(self, result: StepResult) -> None:
        """Count one step, done or skipped."""
        self.step += 1
        self.consumed_samples += result.samples
        if result.refusal is None:
            self.loss = result.loss
        skipped = result.refusal is not None
        self.recent.append(StepRecord(step=self.step, skipped=skipped, **result.finite_numbers()))
        self.recent = kept_steps(self.recent, self.saved_step)
        self.since.samples += result.samples
        self.since.steps += 1


@dataclass(frozen=True)
class Run:
    """One rank's view of a training run."""

    config: RunConfig
    mesh: Mesh
    device: Device
    engine: Engine
    fragments: OptimizerFragments
    saver: Saver
    parameters: Sequence[LocalParameter]
    """What this rank holds of the model."""

    data: TrainingData
    validation: list[ValidationSource]
    token_bytes: np.ndarray
    rules: SampleRules
    identity: RunIdentity
    state: TrainState
    clock: StepClock
    heartbeat: Heartbeat
    stop_signal: StopSignal
    sampler: Sampler | None
    """Writes texts, if the run shall."""

    distillation: Distillation | None
    """What it learns from beside its data."""

    peak_flops: float | None
    """FLOP/s of one rank at most."""

    metrics: Metrics | None
    """Rank 0 only."""

    ledger: Ledger | None
    """Rank 0 only."""

    keeper: Keeper | None
    """Rank 0 only."""

    @property
    def step_samples(self) -> int:
        """Samples of the next step."""
        return self.config.batch_sizes.at(self.state.consumed_samples)

    def first_sample(self, micro_batch: int) -> int:
        """Return the first sample of this rank's ``micro_batch`` of the next step.

        Micro batch m of replica r holds the samples (m x replicas + r) x micro_batch_size onwards: the same groups of
        samples for every number of replicas.
        """
        number = micro_batch * self.mesh.layout.data_parallel_size + self.mesh.place.dp_rank
        return self.state.consumed_samples + number * self.config.batch.micro_batch_size

    @property
    def num_micro_batches(self) -> int:
        """Forwards of the next step on this rank."""
        return self.step_samples // (self.config.batch.micro_batch_size * self.mesh.layout.data_parallel_size)
