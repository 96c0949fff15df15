"""What a run is judged by while it trains: named validation sets, and when to end for want of progress."""

import re
from pathlib import Path
from typing import Literal

from gptdist.config.section import Section


class ValidationSet(Section):
    """Windows of a dataset folder that are measured under a name of their own, beside the training sources."""

    name: str
    """How logs call it: ``loss_<name>``, ``bits_per_byte_<name>``, ``perplexity_<name>``."""

    path: Path
    """Dataset folder written by ``gptdist prep``; it need not be one that the run trains on."""

    split: Literal["validation", "train"] = "validation"
    """Which of its splits to take."""

    samples: int | None = None
    """Windows, spread evenly over the split; 0 takes all, unset is ``data.eval_samples``."""

    def problems(self, where: str) -> list[str]:
        """Return every value out of its range; ``where`` is the section's place in the config."""
        bad = []
        if re.fullmatch(r"\w[\w.-]*", self.name) is None:
            bad.append(f"{where}.name: must be letters, digits, '_', '-' and '.', got '{self.name}'; rename it")
        if self.samples is not None and self.samples < 0:
            bad.append(f"{where}.samples: must be at least 0, got {self.samples}; 0 takes all")
        return bad


def set_problems(sets: tuple[ValidationSet, ...], leading: str | None, source_names: list[str]) -> list[str]:
    """Return what is wrong with ``data.validation``, and with ``leading``, the set that is the validation loss."""
    bad = []
    for index, one in enumerate(sets):
        bad += one.problems(f"data.validation[{index}]")
    names = [one.name for one in sets]
    bad += [
        f"data.validation: two sets are called '{name}'; rename one"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    bad += [
        f"data.validation: '{name}' is the name of a training source, whose validation split is measured anyway; "
        f"rename the set, or remove it"
        for name in sorted(set(names) & set(source_names))
    ]
    if leading is not None and leading not in names:
        known = f"known: {', '.join(names)}" if names else "data.validation names none"
        bad.append(f"data.validation_set: no set is called '{leading}' ({known}); name one, or leave it out")
    return bad


class EarlyStoppingConfig(Section):
    """When a run ends before ``train_steps``: its ``validation_loss`` no longer falls."""

    patience_evaluations: int
    """So many evaluations in a row without a new lowest loss end the run."""

    min_delta: float = 0.0
    """What a loss must be below the lowest one to count as new, nats a token."""

    def problems(self, train_steps: int, eval_steps: int) -> list[str]:
        """Return every value out of its range, and a patience that outlasts the run."""
        where, patience = "training.early_stopping", self.patience_evaluations
        bad = []
        if self.min_delta < 0.0:
            bad.append(f"{where}.min_delta: must be at least 0, got {self.min_delta}")
        if patience < 1:
            return [*bad, f"{where}.patience_evaluations: must be at least 1, got {patience}"]
        earliest = (1 + patience) * eval_steps
        if earliest >= train_steps >= 1:
            bad.append(
                f"{where}.patience_evaluations: {patience}, with intervals.eval_steps {eval_steps}, cannot end the run "
                f"before step {earliest}, and training.train_steps is {train_steps}; shorten patience or eval_steps, "
                f"or leave early_stopping out"
            )
        return bad


class GenerationConfig(Section):
    """Texts that the model writes every ``intervals.sample_steps`` steps, into RUN/samples.jsonl and TensorBoard."""

    prompts: tuple[str, ...] = ()
    """What to continue; an empty one begins a new document."""

    prompts_file: Path | None = None
    """UTF-8 file with a prompt on each line, in place of ``prompts``; relative to the working folder."""

    max_new_tokens: int = 64
    """Tokens of a text at most; it ends earlier at the end of its document, or where ``model.seq_length`` is full."""

    temperature: float = 1.0
    """Logits are divided by it: below 1 the likely tokens get likelier. 0 always takes the likeliest."""

    top_k: int = 0
    """Choose among this many likeliest tokens; 0 is all."""

    top_p: float = 1.0
    """Choose among the likeliest tokens that together have this probability."""

    def problems(self, seq_length: int) -> list[str]:
        """Return every value out of its range."""
        bad = []
        if bool(self.prompts) == (self.prompts_file is not None):
            found = "both" if self.prompts else "neither"
            bad.append(f"generation: takes either prompts or prompts_file, got {found}; set one")
        if not 1 <= self.max_new_tokens < seq_length:
            bad.append(
                f"generation.max_new_tokens: must be from 1 to model.seq_length - 1 ({seq_length - 1}), "
                f"got {self.max_new_tokens}"
            )
        if self.temperature < 0.0:
            bad.append(f"generation.temperature: must be at least 0, got {self.temperature}; 0 takes the likeliest")
        if self.top_k < 0:
            bad.append(f"generation.top_k: must be at least 0, got {self.top_k}; 0 is all tokens")
        if not 0.0 < self.top_p <= 1.0:
            bad.append(f"generation.top_p: must be above 0 and at most 1, got {self.top_p}; 1 is all tokens")
        if self.temperature == 0.0 and (self.top_k or self.top_p < 1.0):
            bad.append("generation.temperature: 0 takes the likeliest token; remove top_k and top_p, or raise it")
        return bad


def generation_problems(generation: GenerationConfig | None, sample_steps: int | None, seq_length: int) -> list[str]:
    """Return why texts cannot be written every ``sample_steps`` steps."""
    if generation is None:
        return [] if sample_steps is None else ["intervals.sample_steps: generation is missing; set generation.prompts"]
    bad = generation.problems(seq_length)
    if sample_steps is None:
        bad.append("generation: intervals.sample_steps is missing; set it, or remove generation")
    return bad
