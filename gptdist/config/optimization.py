"""Optimizer and learning-rate schedule."""

from typing import Literal, NamedTuple

from gptdist.config.section import Section

ADAM_MOMENTS = ("exp_avg", "exp_avg_sq")
"""Means of a tensor's gradients and of their squares."""

MUON_MOMENTS = ("momentum_buffer",)
"""Mean of a matrix's gradients."""

BETA1 = 0.9
"""Value of ``beta1`` where none is given."""

BETA2 = {"adamw": 0.95, "lion": 0.99, "muon": 0.95}
"""Value of ``beta2`` where none is given; lion: Chen et al. 2023, arXiv 2302.06675, section 4."""

HIGHEST_BF16_BETA2 = 0.99
"""bf16 keeps 8 bits: a mean that moves by 1 - beta2 of itself, below 1/256, is rounded back to where it was."""


class OptimizerConfig(Section):
    """How gradients become updates; weight decay is decoupled, and of matrices only (not of biases and norms)."""

    kind: Literal["adamw", "lion", "muon", "adafactor"] = "adamw"
    """``lion`` takes the sign of a mean of gradients and keeps one moment; its rate is 3 to 10 times lower, and its
    weight decay as much higher, than AdamW's. ``muon`` makes updates of hidden matrices orthogonal, scaled so that
    AdamW's rate and weight decay do; embeddings, output layer, norms, biases and routers get AdamW.
    ``adafactor`` keeps the means of rows and of columns of a matrix's squared gradients, and no mean of gradients;
    updates have a root mean square of 1 at most before ``lr``, which is not scaled by the size of the weights."""

    lr: float = 3e-4
    """Highest learning rate, reached at the end of the warm-up."""

    beta1: float | None = None
    """Decay of the mean of gradients, default 0.9; of ``lion`` the share of its mean in an update; not of
    ``adafactor``."""

    beta2: float | None = None
    """Decay of the mean of squared gradients, default 0.95; of ``lion`` that of its mean, default 0.99; not of
    ``adafactor``, where it is 1 - t^-0.8 in step t."""

    eps: float | None = None
    """Added to the root of the mean square, default 1e-8; not of ``lion`` and ``adafactor``."""

    muon_momentum: float | None = None
    """Decay of ``muon``'s mean of gradients, default 0.95."""

    moment_precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the moments: bf16 saves 2 bytes a parameter and moment. The arithmetic is in fp32."""

    weight_decay: float = 0.1
    """Decoupled weight decay of matrices."""

    max_grad_norm: float = 1.0
    """Gradients are scaled down to this L2 norm; 0 leaves them alone."""

    @property
    def betas(self) -> tuple[float, float]:
        """Both decays, of kinds that have them."""
        beta2 = BETA2.get(self.kind, 0.0) if self.beta2 is None else self.beta2
        return BETA1 if self.beta1 is None else self.beta1, beta2

    @property
    def epsilon(self) -> float:
        """What is added to the root of the mean square."""
        return 1e-8 if self.eps is None else self.eps

    @property
    def momentum(self) -> float:
        """Decay of Muon's mean of gradients."""
        return 0.95 if self.muon_momentum is None else self.muon_momentum

    def moments(self, *, of_hidden_matrix: bool, of_matrix: bool) -> tuple[str, ...]:
        """Return the names of what is kept of each value of a tensor beside its weight."""
        if self.kind == "adafactor":
            return () if of_matrix else ADAM_MOMENTS[1:]
        if self.kind == "lion":
            return ADAM_MOMENTS[:1]
        return MUON_MOMENTS if self.kind == "muon" and of_hidden_matrix else ADAM_MOMENTS

    def problems(self) -> list[str]:
        """Return every value out of its range, or of another kind of optimizer."""
        bad = [
            f"optimizer.{name}: must be above 0, got {value}"
            for name, value in (("lr", self.lr), ("eps", self.epsilon))
            if value <= 0.0
        ]
        bad += [
            f"optimizer.{name}: must be at least 0 and below 1, got {value}"
            for name, value in zip(("beta1", "beta2", "muon_momentum"), (*self.betas, self.momentum), strict=True)
            if not 0.0 <= value < 1.0
        ]
        bad += [
            f"optimizer.{name}: must be at least 0, got {getattr(self, name)}"
            for name in ("weight_decay", "max_grad_norm")
            if getattr(self, name) < 0.0
        ]
        if self.eps is not None and self.kind in {"lion", "adafactor"}:
            bad.append(f"optimizer.eps: belongs to kind adamw, not {self.kind}; remove it")
        bad += [
            f"optimizer.{name}: belongs to kinds adamw, lion and muon, not adafactor; remove it"
            for name in ("beta1", "beta2")
            if self.kind == "adafactor" and getattr(self, name) is not None
        ]
        if self.muon_momentum is not None and self.kind != "muon":
            bad.append(f"optimizer.muon_momentum: belongs to kind muon, not {self.kind}; remove it")
        if self.moment_precision == "bf16" and self.kind in {"muon", "adafactor"}:
            bad.append(
                f"optimizer.moment_precision: {self.kind} keeps its moments in fp32; leave it out, or use adamw or lion"
            )
        elif self.moment_precision == "bf16" and HIGHEST_BF16_BETA2 < self.betas[1] < 1.0:
            bad.append(
                f"optimizer.beta2: must be at most {HIGHEST_BF16_BETA2} with moment_precision bf16, which rounds "
                f"smaller changes of a moment away, got {self.betas[1]}; lower it, or keep moments in fp32"
            )
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

    def problems(self, train_steps: int, train_tokens: int) -> list[str]:
        """Return every value out of its range for a run of ``train_steps``, which take ``train_tokens`` in all."""
        bad = []
        steps = [name for name in ("decay_steps", "cooldown_steps") if getattr(self, name) is not None]
        steps += ["warmup_steps"] if self.warmup_steps else []
        if self.in_tokens and steps:
            bad.append(
                f"schedule.{steps[0]}: in steps, while another length is in tokens; give all of them in one unit"
            )
        unit = "tokens" if self.in_tokens else "steps"
        lengths = self.lengths(train_tokens if self.in_tokens else train_steps)
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
