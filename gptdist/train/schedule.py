"""Learning rate as a pure function of what was consumed: nothing to store, nothing to restore."""

import math
from dataclasses import dataclass

from gptdist.config.optimization import OptimizerConfig, ScheduleConfig


@dataclass(frozen=True)
class Position:
    """Where in the run an update stands."""

    step: int
    """Updates before it."""

    tokens: int
    """Tokens consumed before it."""

    step_tokens: int
    """Tokens that it consumes."""


def learning_rate(
    position: Position, optimizer: OptimizerConfig, schedule: ScheduleConfig, *, train_steps: int, train_tokens: int
) -> float:
    """Return the rate of the update at ``position``.

    Linear from nothing to ``lr`` over the warm-up, then by the schedule's kind down to ``min_lr_ratio x lr`` at its
    end, flat after it.

    Source: cosine: Brown et al. 2020 (GPT-3), appendix B; inverse square root: Vaswani et al. 2017, section 5.3; wsd:
    Hu et al. 2024 (MiniCPM), arXiv 2404.06395, section 4; its one_minus_sqrt: Hagele et al. 2024, arXiv 2405.18392.
    """
    if schedule.in_tokens:
        before, after, run_length = position.tokens, position.tokens + position.step_tokens, train_tokens
    else:
        before, after, run_length = position.step, position.step + 1, train_steps
    lengths = schedule.lengths(run_length)
    if before < lengths.warmup:
        return optimizer.lr * min(1.0, after / lengths.warmup)
    lowest = schedule.min_lr_ratio
    match schedule.kind:
        case "constant":
            return optimizer.lr
        case "inverse_sqrt":
            return optimizer.lr * max(lowest, math.sqrt(max(1, lengths.warmup) / max(1, before)))
        case "wsd":
            begin, shape = lengths.end - lengths.cooldown, schedule.cooldown_shape
        case kind:
            begin, shape = lengths.warmup, kind
    progress = min(1.0, max(0.0, (before - begin) / max(1, lengths.end - begin)))
    return optimizer.lr * (lowest + (1.0 - lowest) * _remaining(shape, progress))


def _remaining(shape: str, progress: float) -> float:
    """Return how much of the fall is still to come, 1 to 0."""
    if shape == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0 - (math.sqrt(progress) if shape == "one_minus_sqrt" else progress)
