"""Optimizer and learning-rate schedule."""

from typing import Literal

from gptdist.config.section import Section


class OptimizerConfig(Section):
    """AdamW, with weight decay on matrices only (not on biases and norms)."""

    lr: float = 3e-4
    """Highest learning rate, reached at the end of the warm-up."""

    beta1: float = 0.9
    """Decay of the mean of gradients."""

    beta2: float = 0.95
    """Decay of the mean of squared gradients."""

    eps: float = 1e-8
    """Added to the root of the mean square."""

    weight_decay: float = 0.1
    """Decoupled weight decay of matrices."""

    max_grad_norm: float = 1.0
    """Gradients are scaled down to this L2 norm; 0 leaves them alone."""

    def problems(self) -> list[str]:
        """Return every value out of its range."""
        bad = [
            f"optimizer.{name}: must be above 0, got {getattr(self, name)}"
            for name in ("lr", "eps")
            if getattr(self, name) <= 0.0
        ]
        bad += [
            f"optimizer.{name}: must be at least 0 and below 1, got {getattr(self, name)}"
            for name in ("beta1", "beta2")
            if not 0.0 <= getattr(self, name) < 1.0
        ]
        bad += [
            f"optimizer.{name}: must be at least 0, got {getattr(self, name)}"
            for name in ("weight_decay", "max_grad_norm")
            if getattr(self, name) < 0.0
        ]
        return bad


class ScheduleConfig(Section):
    """Learning rate over optimizer steps."""

    kind: Literal["cosine", "constant"] = "cosine"
    """Shape after the warm-up."""

    warmup_steps: int = 0
    """Steps over which the rate rises linearly from 0 to optimizer.lr."""

    decay_steps: int | None = None
    """Step at which the lowest rate is reached, counted from 0; default training.train_steps."""

    min_lr_ratio: float = 0.1
    """Lowest rate, as a fraction of optimizer.lr."""

    def problems(self, train_steps: int) -> list[str]:
        """Return every value out of its range for a run of ``train_steps``."""
        bad = []
        last = train_steps if self.decay_steps is None else self.decay_steps
        if not 0 <= self.warmup_steps < max(last, 1):
            bad.append(
                f"schedule.warmup_steps: must be at least 0 and below the end of the decay ({last}), "
                f"got {self.warmup_steps}; shorten the warm-up or train longer"
            )
        if not 0.0 <= self.min_lr_ratio <= 1.0:
            bad.append(f"schedule.min_lr_ratio: must be from 0 to 1, got {self.min_lr_ratio}")
        return bad
