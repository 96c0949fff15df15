"""Learning rate as a pure function of the step: nothing to store, nothing to restore."""

import math

from gptdist.config.optimization import OptimizerConfig, ScheduleConfig


def learning_rate(step: int, optimizer: OptimizerConfig, schedule: ScheduleConfig, train_steps: int) -> float:
    """Return the rate of the update that turns ``step`` into ``step + 1``.

    Linear from ``lr / warmup_steps`` to ``lr``, then half a cosine down to ``min_lr_ratio x lr`` at ``decay_steps``,
    flat after it.

    Source: Brown et al. 2020 (GPT-3), appendix B.
    """
    if step < schedule.warmup_steps:
        return optimizer.lr * (step + 1) / schedule.warmup_steps
    if schedule.kind == "constant":
        return optimizer.lr
    end = train_steps if schedule.decay_steps is None else schedule.decay_steps
    progress = min(1.0, (step - schedule.warmup_steps) / max(1, end - schedule.warmup_steps))
    lowest = schedule.min_lr_ratio
    return optimizer.lr * (lowest + (1.0 - lowest) * 0.5 * (1.0 + math.cos(math.pi * progress)))
