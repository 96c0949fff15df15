"""What a run learns from beside its data: a teacher that answers each micro batch, or its answers from a cache."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from gptdist.checkpoint.identity import RunIdentity
from gptdist.checkpoint.teacher import Teacher, check_source
from gptdist.checkpoint.verify import verify
from gptdist.config.run import RunConfig
from gptdist.data.batches import Batch
from gptdist.data.logit_cache import LogitCache
from gptdist.data.sources import TrainingData
from gptdist.device.device import Device
from gptdist.errors import CheckpointError, GptDistError
from gptdist.mesh.context import ContextPart
from gptdist.mesh.groups import Mesh, broadcast_text, max_over_ranks
from gptdist.mesh.patience import while_lead_works
from gptdist.model.distillation_loss import Objective, SparseTargets, Targets
from gptdist.model.gpt import LanguageModel, OutputHead
from gptdist.model.lesson import Lesson
from gptdist.telemetry.ledger import Ledger
from gptdist.tokenizer.tokenizer import Tokenizer
from gptdist.train.guards import GuardState
from gptdist.train.hidden_terms import HiddenTerms
from gptdist.train.teacher import FrozenTeacher

logger = logging.getLogger(__name__)

TEACHER_EVENT = "teacher"
"""What an attempt learns from, in the ledger."""


class Source(Protocol):
    """Where the teacher's answers come from."""

    def answer(self, batch: Batch, rows: Sequence[np.ndarray], first_sample: int) -> tuple[Targets, dict[int, Tensor]]:
        """Return it to a micro batch of the samples from ``first_sample`` on, and outputs of the teacher's layers."""
        ...


class Distillation:
    """Gives the student's output head a lesson for each micro batch, and adds up what comes of them."""

    def __init__(self, config: RunConfig, mesh: Mesh, model: LanguageModel, source: Source, widths: tuple[int, int]):
        """Teach ``model``, the student's part on this rank; ``widths`` are hidden sizes of student and teacher."""
        settings = config.distillation
        assert settings is not None, "there is something to learn from"
        self._until_step = settings.until_step
        self._mesh = mesh
        self._source = source
        self._head: OutputHead = model.output_layer
        self._objective = Objective(
            divergence=settings.loss,
            temperature=settings.temperature,
            ce_weight=settings.ce_weight,
            kl_weight=settings.kl_weight,
            z_loss=config.training.z_loss,
        )
        self._hidden = HiddenTerms(settings.hidden, model, mesh, widths=widths) if settings.hidden else None
        self._sums = torch.zeros(3)
        self._count, self._factor = 0, 1.0
        self._is_on = True

    def begin_step(self, step: int, guards: GuardState, factor: float) -> None:
        """Begin to add up anew.

        Args:
            step: steps done.
            guards: forget the losses before, where the loss becomes another one.
            factor: what the losses of the step's micro batches are multiplied by.
        """
        self._sums, self._count, self._factor = torch.zeros_like(self._sums), 0, factor
        self._is_on = self._until_step is None or step < self._until_step
        if step == self._until_step:
            logger.info("distillation.until_step: from step %d on the run learns from its data alone", step + 1)
            guards.losses.clear()  # the loss is another one from here: they would take it for a spike
            guards.grad_norms.clear()

    def teach(self, batch: Batch, rows: Sequence[np.ndarray], first_sample: int) -> None:
        """Prepare the head for the micro batch that comes next. Collective: every rank calls it."""
        self._head.lesson = None
        if not self._is_on:
            return
        targets, layers = self._source.answer(batch, rows, first_sample)
        hidden = self._hidden
        terms = None if hidden is None else partial(hidden.of, teacher=layers)
        self._head.lesson = Lesson(self._objective, targets, self._report, terms)

    def _report(self, parts: Tensor) -> None:
        self._sums = self._sums.to(parts.device) + parts.float()
        self._count += 1

    def numbers(self) -> dict[str, float]:
        """Return what the last step's loss is made of, unweighted but for hidden terms, nats a token.

        Collective: every rank calls it. Communication: an all-reduce of three values over all ranks.
        """
        if not self._count:
            return {}
        means = self._sums * self._factor / self._count / self._mesh.layout.world_size
        if self._mesh.layout.world_size > 1:
            dist.all_reduce(means)
        names = ("ce", "kl") if self._hidden is None else ("ce", "kl", "hidden")
        return {name: value for name, value in zip(names, means.tolist(), strict=False) if np.isfinite(value)}


class _Online:
    """A teacher that is there."""

    def __init__(self, teacher: FrozenTeacher) -> None:
        self._teacher = teacher

    def answer(self, batch: Batch, _: Sequence[np.ndarray], __: int) -> tuple[Targets, dict[int, Tensor]]:
        return self._teacher.answer(batch)


class _Cached:
    """Answers of a teacher that is not there."""

    def __init__(self, cache: LogitCache, part: ContextPart, device: torch.device) -> None:
        self._cache, self._part, self._device = cache, part, device

    def answer(self, _: Batch, rows: Sequence[np.ndarray], first_sample: int) -> tuple[Targets, dict[int, Tensor]]:
        kept = self._cache.rows(first_sample, rows)
        ids, probabilities, constant = (
            self._part.of(torch.from_numpy(values).to(self._device), 1).transpose(0, 1).flatten(0, 1)
            for values in (kept.ids, kept.probabilities, kept.constant)
        )
        has_rest = self._cache.manifest.facts.method == "top_k"
        return SparseTargets(ids, probabilities, constant, has_rest), {}


def open_distillation(
    config: RunConfig, tokenizer: Tokenizer, data: TrainingData, model: nn.Module, mesh: Mesh, device: Device
) -> Distillation | None:
    """Return what the run learns from beside its data; nothing without the section. Collective: every rank calls it.

    Args:
        config: of the run.
        tokenizer: of its data.
        data: its samples.
        model: the student, in its engine.
        mesh: the ranks.
        device: of the student.

    Raises:
        GptDistError: the teacher or the cache is missing, damaged, or does not fit the run, on every rank.
    """
    if config.distillation is None:
        return None
    assert isinstance(model, LanguageModel), "the engine's module is the model"
    found = check_source(config, tokenizer, data)
    if not isinstance(found, Teacher):
        assert config.distillation.cache is not None, "a cache was looked at"
        cached = _Cached(LogitCache(config.distillation.cache), mesh.context_part, device.torch_device)
        return Distillation(config, mesh, model, cached, (0, 0))
    _verify_teacher(found.folder, mesh)
    problem = ""
    try:
        frozen = FrozenTeacher(
            found,
            mesh,
            device,
            sequence_parallel=config.parallel.sequence_parallel,
            layers=[term.teacher_layer for term in config.distillation.hidden],
            student_shard=model.output_layer.shard,
        )
    except CheckpointError as error:
        problem = str(error)
    if max_over_ranks(len(problem)):
        raise CheckpointError(problem or f"{found.folder}: another rank could not read it, see its message")
    _tell(found, config)
    return Distillation(config, mesh, model, _Online(frozen), (config.model.hidden_size, found.model.hidden_size))


def _verify_teacher(folder: Path, mesh: Mesh) -> None:
    """Refuse a teacher that is damaged, on every rank; rank 0 reads all of it."""
    problem = ""
    try:
        problem = next(iter(while_lead_works(partial(verify, folder), mesh) or []), "")
    except GptDistError as error:
        problem = str(error)
    problem = broadcast_text(problem) or ""
    if problem:
        raise CheckpointError(f"distillation.teacher: {problem}; the checkpoint is damaged, name another one")


def _tell(teacher: Teacher, config: RunConfig) -> None:
    logger.info("teacher: %s (step %d)", teacher.folder, teacher.manifest.step)
    if teacher.matched is not None:
        shared, size = teacher.num_shared, config.model.vocab_size
        logger.info("teacher: knows %d of the %d tokens; the divergence is over those", shared, size)


def record_teacher(ledger: Ledger, identity: RunIdentity) -> None:
    """Note what an attempt learns from, if there is something."""
    settings = identity.config.get("distillation")
    if settings is not None:
        path = settings["cache"] if settings["teacher"] is None else settings["teacher"]
        ledger.write(TEACHER_EVENT, path=path, sha256=identity.teacher_fingerprint)
