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
