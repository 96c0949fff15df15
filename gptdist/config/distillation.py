"""A run that learns from a teacher: which one, and what is minimised."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from gptdist.config.memory import MemoryConfig
from gptdist.config.parallel import ParallelConfig
from gptdist.config.section import Section


class HiddenTerm(Section):
    """One layer of the student that is to give what one of the teacher gives, at each token that counts in the loss."""

    student_layer: int
    """From 0; what the layer adds is in."""

    teacher_layer: int
    kind: Literal["mse", "cosine"] = "mse"
    """``mse``: mean over widths of the squared difference; ``cosine``: 1 - cosine of the angle between."""

    weight: float = 1.0
    """What the mean over tokens is multiplied by in the loss."""

    def problems(self, where: str, num_layers: int) -> list[str]:
        """Return every value out of its range for a student of ``num_layers``; the teacher's are not known here."""
        bad = []
        if not 0 <= self.student_layer < num_layers:
            bad.append(
                f"{where}.student_layer: must be from 0 to model.num_layers - 1 ({num_layers - 1}), "
                f"got {self.student_layer}"
            )
        if self.teacher_layer < 0:
            bad.append(f"{where}.teacher_layer: must be at least 0, got {self.teacher_layer}")
        if self.weight <= 0.0:
            bad.append(f"{where}.weight: must be above 0, got {self.weight}; remove the term instead")
        return bad


class DistillationConfig(Section):
    """What a run learns from a frozen teacher beside its data.

    The loss that is minimised, and shown, is ce_weight x cross-entropy + kl_weight x temperature^2 x divergence, plus
    each of ``hidden`` x its weight.
    """

    teacher: Path | None = None
    """A checkpoint of it (run or step folder, or an imported one); relative to the working folder."""

    cache: Path | None = None
    """In place of ``teacher``: a folder that `gptdist distill cache` wrote for this very data order."""

    loss: Literal["forward", "reverse"] = "forward"
    """The divergence: ``forward`` is KL(teacher || student), ``reverse`` is KL(student || teacher)."""

    temperature: float = 1.0
    """Logits of both are divided by it; the divergence is multiplied by its square, so that gradients keep their
    size."""

    ce_weight: float = 0.0
    kl_weight: float = 1.0
    until_step: int | None = None
    """From behind this step on the run learns from its data alone; unset is never."""

    hidden: tuple[HiddenTerm, ...] = ()
    """Terms on hidden states. Where the widths differ, the student's states are first mapped to the teacher's width by
    orthonormal vectors that the seed draws once: nothing is learnt, saved or exported for it."""

    map_vocabulary: bool = False
    """Whether the teacher's tokenizer may be another one: tokens that both spell alike are matched, and the divergence
    is over those alone."""

    teacher_tokenizer: Path | None = None
    """For ``map_vocabulary``: the teacher's; default: what its checkpoint names."""

    def problems(
        self, *, train_steps: int, num_layers: int, parallel: ParallelConfig, memory: MemoryConfig, has_ramp: bool
    ) -> list[str]:
        """Return every reason why a run cannot learn so; looks at no disk.

        Args:
            train_steps: of the run.
            num_layers: of the student.
            parallel: how the ranks are split.
            memory: what is computed again.
            has_ramp: whether sequences begin shorter.
        """
        bad = self._source_problems(has_ramp=has_ramp)
        if self.temperature <= 0.0:
            bad.append(f"distillation.temperature: must be above 0, got {self.temperature}")
        if self.ce_weight < 0.0:
            bad.append(f"distillation.ce_weight: must be at least 0, got {self.ce_weight}")
        if self.kl_weight < 0.0 or (self.kl_weight == 0.0 and not self.hidden):
            bad.append(
                f"distillation.kl_weight: must be above 0 (0 only beside distillation.hidden), got {self.kl_weight}"
            )
        if self.until_step is not None and not 1 <= self.until_step < train_steps:
            bad.append(
                f"distillation.until_step: must be from 1 to training.train_steps - 1 ({train_steps - 1}), "
                f"got {self.until_step}; leave it out to learn from the teacher to the end"
            )
        for index, term in enumerate(self.hidden):
            bad += term.problems(f"distillation.hidden[{index}]", num_layers)
        if self.hidden and memory.recompute in ("full", "budget"):
            bad.append(
                f"memory.recompute: {memory.recompute} keeps no layer's output, which distillation.hidden compares; "
                f"use none, attention or mlp, or leave hidden out"
            )
        return bad + _layout_problems(parallel)

    def _source_problems(self, *, has_ramp: bool) -> list[str]:
        """Return what is wrong with where the teacher's logits come from."""
        bad = []
        if (self.teacher is None) == (self.cache is None):
            found = "neither" if self.teacher is None else "both"
            bad.append(f"distillation: takes either teacher or cache, got {found}; set one")
        if self.teacher_tokenizer is not None and not self.map_vocabulary:
            bad.append("distillation.teacher_tokenizer: belongs to map_vocabulary; set that, or remove it")
        if self.cache is None:
            return bad
        reasons: Sequence[tuple[bool, str]] = (
            (self.loss == "reverse", "loss: reverse needs the teacher's probability of every token"),
            (bool(self.hidden), "hidden: the teacher's hidden states are needed"),
            (self.map_vocabulary, "map_vocabulary: another teacher's tokens would have to be matched"),
        )
        bad += [
            f"distillation.{why}, and a cache holds a few tokens' alone; name the teacher, or leave it out"
            for is_so, why in reasons
            if is_so
        ]
        if has_ramp:
            bad.append(
                "distillation.cache: holds logits of whole samples, batch.seq_length_ramp cuts them; name the teacher, "
                "or leave the ramp out"
            )
        return bad

    def path_problems(self) -> list[str]:
        """Return each folder that does not exist."""
        paths = {"teacher": self.teacher, "cache": self.cache, "teacher_tokenizer": self.teacher_tokenizer}
        return [
            f"distillation.{name}: '{path}' does not exist; name another, or run from the folder that it is relative to"
            for name, path in paths.items()
            if path is not None and not path.exists()
        ]


def _layout_problems(parallel: ParallelConfig) -> list[str]:
    bad = []
    if parallel.pipeline_parallel_size > 1:
        bad.append(
            f"parallel.pipeline_parallel_size ({parallel.pipeline_parallel_size}): a teacher is not cut into stages; "
            f"use 1 with distillation, and tensor_parallel_size or zero_stage to spread the model"
        )
    if parallel.expert_parallel_size > 1:
        bad.append(
            f"parallel.expert_parallel_size ({parallel.expert_parallel_size}): not tested with distillation; use 1"
        )
    return bad
