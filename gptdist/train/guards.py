"""Which steps are refused: what is not finite, or far above the steps before it. Pure arithmetic, equal on all ranks.

All of its memory is in the checkpoint, so that a resumed run refuses the same steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from gptdist.checkpoint.manifest import GuardRecord
from gptdist.config.guards import GuardsConfig


@dataclass(frozen=True)
class Refusal:
    """Why a step was not taken."""

    what: str
    """``"loss"`` or ``"grad_norm"``."""

    value: float
    mean: float | None = None
    """Mean of the window; none where the value is not finite."""

    z_score: float | None = None
    """Standard deviations that the value is above the mean."""

    def __str__(self) -> str:
        """Return the reason in words."""
        name = self.what.replace("grad_norm", "gradient norm")
        if self.mean is None:
            return f"{name} is {self.value}"
        return f"{name} {self.value:.4g} is {self.z_score:.1f} standard deviations above {self.mean:.4g}"


@dataclass(frozen=True)
class Verdict:
    """What a step measured, and whether it may be taken."""

    loss: float
    grad_norm: float | None
    refusal: Refusal | None


@dataclass
class GuardState:
    """What the guards remember."""

    losses: list[float] = field(default_factory=list)
    """Of the last good steps, oldest first."""

    grad_norms: list[float] = field(default_factory=list)
    skipped_steps: list[int] = field(default_factory=list)
    """Those of the last ``window_steps`` steps that were skipped."""

    rewinds: int = 0
    """How often the run went back to a checkpoint."""

    @classmethod
    def of(cls, record: GuardRecord) -> Self:
        """Return what a checkpoint remembers."""
        return cls(list(record.losses), list(record.grad_norms), list(record.skipped_steps), record.rewinds)

    def record(self) -> GuardRecord:
        """Return what a checkpoint has to keep."""
        return GuardRecord(
            losses=tuple(self.losses),
            grad_norms=tuple(self.grad_norms),
            skipped_steps=tuple(self.skipped_steps),
            rewinds=self.rewinds,
        )

    def judge(self, config: GuardsConfig, loss: float, grad_norm: float | None) -> Verdict:
        """Say whether a step with these numbers may be taken."""
        return Verdict(loss, grad_norm, self._refusal(config, loss, grad_norm))

    def _refusal(self, config: GuardsConfig, loss: float, grad_norm: float | None) -> Refusal | None:
        measured = {"loss": (loss, self.losses)}
        if grad_norm is not None:
            measured["grad_norm"] = (grad_norm, self.grad_norms)
        for what, (value, _) in measured.items():
            if not math.isfinite(value):
                return Refusal(what, value)
        if config.max_z_score is None:
            return None
        for what, (value, window) in measured.items():
            if len(window) >= config.min_steps:
                mean, z_score = _z_score(value, window, config.min_deviation)
                if z_score > config.max_z_score:
                    return Refusal(what, value, mean, z_score)
        return None

    def advance(self, config: GuardsConfig, step: int, verdict: Verdict) -> None:
        """Remember ``step``, which is done or skipped."""
        if verdict.refusal is not None:
            self.skipped_steps.append(step)
        else:
            self.losses.append(verdict.loss)
            if verdict.grad_norm is not None:
                self.grad_norms.append(verdict.grad_norm)
        del self.losses[: -config.window_steps], self.grad_norms[: -config.window_steps]
        self.skipped_steps = [skipped for skipped in self.skipped_steps if skipped > step - config.window_steps]

    def is_too_much(self, config: GuardsConfig) -> bool:
        """Whether too many of the last steps were skipped."""
        return len(self.skipped_steps) > config.max_skips


def _z_score(value: float, window: Sequence[float], min_deviation: float) -> tuple[float, float]:
    """Return the mean of ``window``, and how many standard deviations ``value`` is above it."""
    mean = math.fsum(window) / len(window)
    deviation = math.sqrt(math.fsum((one - mean) ** 2 for one in window) / len(window))
    deviation = max(deviation, min_deviation * abs(mean))
    return mean, (value - mean) / deviation if deviation else 0.0
