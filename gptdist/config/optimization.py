"""Optimizer and learning-rate schedule."""

from typing import Literal, NamedTuple

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
    """Learning rate over a run: a function of what was consumed, in optimizer steps or in tokens, not of both.

    Lengths in tokens keep their meaning where the batch changes; those without a value follow from the run's length.
    """

    kind: Literal["cosine", "linear", "inverse_sqrt", "wsd", "constant"] = "cosine"
    """Shape after the warm-up. ``inverse_sqrt`` falls with 1 / sqrt(step); ``wsd`` stays, and cools down at the end."""

    warmup_steps: int = 0
    """Length over which the rate rises linearly from 0 to optimizer.lr."""

    warmup_tokens: int | None = None
    """The same in tokens."""

    decay_steps: int | None = None
    """Step at which the lowest rate is reached, counted from 0; default the end of the run."""

    decay_tokens: int | None = None
    """The same in tokens."""

    cooldown_steps: int | None = None
    """Of ``wsd``: length of the fall that ends at ``decay_steps``; default a fifth of what comes before that."""

    cooldown_tokens: int | None = None
    """The same in tokens."""

    cooldown_shape: Literal["linear", "cosine", "one_minus_sqrt"] = "linear"
    """How ``wsd`` falls. ``one_minus_sqrt`` falls fastest at first."""

    min_lr_ratio: float = 0.1
    """Lowest rate, as a fraction of optimizer.lr."""

    @property
    def in_tokens(self) -> bool:
        """Whether lengths are in tokens."""
        return any(value is not None for value in (self.warmup_tokens, self.decay_tokens, self.cooldown_tokens))

    def lengths(self, run_length: int) -> "ScheduleLengths":
        """Return every length in one unit, which is tokens if ``in_tokens``, else steps.

        Args:
            run_length: of the whole run, in that unit.
        """
        if self.in_tokens:
            warmup, end, cooldown = self.warmup_tokens or 0, self.decay_tokens, self.cooldown_tokens
        else:
            warmup, end, cooldown = self.warmup_steps, self.decay_steps, self.cooldown_steps
        end = run_length if end is None else end
        return ScheduleLengths(warmup, end, -(-end // 5) if cooldown is None else cooldown)

    def problems(self, train_steps: int, tokens_per_step: int = 1) -> list[str]:
        """Return every value out of its range for a run of ``train_steps`` of ``tokens_per_step`` each."""
        bad = []
        steps = [name for name in ("decay_steps", "cooldown_steps") if getattr(self, name) is not None]
        steps += ["warmup_steps"] if self.warmup_steps else []
        if self.in_tokens and steps:
            bad.append(
                f"schedule.{steps[0]}: in steps, while another length is in tokens; give all of them in one unit"
            )
        unit = "tokens" if self.in_tokens else "steps"
        lengths = self.lengths(train_steps * (tokens_per_step if self.in_tokens else 1))
        if not 0 <= lengths.warmup < max(lengths.end, 1):
            bad.append(
                f"schedule.warmup_{unit}: must be at least 0 and below the end of the decay ({lengths.end}), "
                f"got {lengths.warmup}; shorten the warm-up or train longer"
            )
        has_end = self.decay_steps is not None or self.decay_tokens is not None
        if has_end and self.kind in ("inverse_sqrt", "constant"):
            bad.append(f"schedule.decay_{unit}: {self.kind} has no end; remove it")
        has_cooldown = self.cooldown_steps is not None or self.cooldown_tokens is not None
        if has_cooldown and self.kind != "wsd":
            bad.append(f"schedule.cooldown_{unit}: belongs to kind wsd, not {self.kind}; remove it")
        elif self.kind == "wsd" and not 0 < lengths.cooldown <= lengths.end - lengths.warmup:
            bad.append(
                f"schedule.cooldown_{unit}: must be above 0 and end with the decay ({lengths.end}) without reaching "
                f"into the warm-up ({lengths.warmup}), got {lengths.cooldown}"
            )
        if not 0.0 <= self.min_lr_ratio <= 1.0:
            bad.append(f"schedule.min_lr_ratio: must be from 0 to 1, got {self.min_lr_ratio}")
        return bad


class ScheduleLengths(NamedTuple):
    """Lengths of a schedule, all of them in steps or all in tokens."""

    warmup: int
    end: int
    """Where the lowest rate is reached."""

    cooldown: int
