"""Scaling laws as their authors printed them: what to train with so much compute, and the loss that comes of it.

Letters: N parameters, D training tokens, C training FLOPs, L loss in nats a token. Every law here takes C = 6 N D, with
N as the law counts it. A loss is one of the law's own data and tokenizer: compare losses of one law only.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

FLOPS_PER_PARAMETER_TOKEN = 6
"""Forward and backward pass, a multiplication and an addition each; attention left out."""

PF_DAY = 1e15 * 86_400

Counting = Literal["all", "without_embeddings", "compute"]
"""What N counts. ``all``: every parameter. ``without_embeddings``: but for tokens' and positions' embeddings and the
output matrix. ``compute``: a sixth of the FLOPs that a token costs, attention included and the output matrix not."""


@dataclass(frozen=True)
class Size:
    """A training run: parameters as a law counts them, and tokens."""

    parameters: float
    tokens: float

    @property
    def flops(self) -> float:
        """Training FLOPs, 6 N D."""
        return FLOPS_PER_PARAMETER_TOKEN * self.parameters * self.tokens

    @classmethod
    def of_budget(cls, flops: float, *, tokens: float) -> "Size":
        """Return what ``flops`` train with so many ``tokens``."""
        return cls(flops / (FLOPS_PER_PARAMETER_TOKEN * tokens), tokens)


@dataclass(frozen=True)
class Law(ABC):
    """What all laws know: the best split of a budget. Subclasses say how."""

    name: str
    source: str
    counts: Counting
    data: str
    """What was trained on, and the tokenizer."""

    fitted_flops: tuple[float, float] | None
    """Smallest and largest budget of the runs that it was fitted to, beyond which it extrapolates; None: not known."""

    def extrapolates(self, flops: float) -> bool:
        """Return whether ``flops`` lie beyond the budgets that the law was fitted to."""
        return self.fitted_flops is not None and not self.fitted_flops[0] <= flops <= self.fitted_flops[1]

    @abstractmethod
    def optimum(self, flops: float) -> Size:
        """Return the run of least loss that ``flops`` pay for."""

    @abstractmethod
    def budget_for_parameters(self, parameters: float) -> float:
        """Return the FLOPs for which so many ``parameters`` are best."""

    @abstractmethod
    def budget_for_tokens(self, tokens: float) -> float:
        """Return the FLOPs for which so many ``tokens`` are best."""

    @abstractmethod
    def best_loss(self, flops: float) -> float | None:
        """Return the loss at the optimum of ``flops``; None where the law has none."""

    @abstractmethod
    def loss(self, size: Size) -> float | None:
        """Return the loss of any run; None where the law knows optimal ones only."""

    @abstractmethod
    def budget_of_loss(self, loss: float) -> float | None:
        """Return the least FLOPs that reach ``loss``; None where none do, or the law has no losses."""


@dataclass(frozen=True)
class LossLaw(Law):
    """L = E + A / N^alpha + B / D^beta.

    Source of the closed forms: Hoffmann et al. 2022, equation 4.
    """

    floor: float
    """E: what no size and no data take away."""

    parameter_factor: float
    token_factor: float
    parameter_exponent: float
    token_exponent: float

    @property
    def _balance(self) -> float:
        """G = (alpha A / beta B)^(1 / (alpha + beta))."""
        ratio = self.parameter_exponent * self.parameter_factor / (self.token_exponent * self.token_factor)
        return float(ratio ** (1.0 / (self.parameter_exponent + self.token_exponent)))

    def optimum(self, flops: float) -> Size:
        """Return N = G (C/6)^(beta / (alpha + beta)) and D = C / 6N."""
        total = self.parameter_exponent + self.token_exponent
        values = flops / FLOPS_PER_PARAMETER_TOKEN
        return Size(
            self._balance * values ** (self.token_exponent / total),
            values ** (self.parameter_exponent / total) / self._balance,
        )

    def budget_for_parameters(self, parameters: float) -> float:
        """Return the FLOPs for which so many ``parameters`` are best."""
        total = self.parameter_exponent + self.token_exponent
        values = (parameters / self._balance) ** (total / self.token_exponent)
        return float(FLOPS_PER_PARAMETER_TOKEN * values)

    def budget_for_tokens(self, tokens: float) -> float:
        """Return the FLOPs for which so many ``tokens`` are best."""
        total = self.parameter_exponent + self.token_exponent
        values = (tokens * self._balance) ** (total / self.parameter_exponent)
        return float(FLOPS_PER_PARAMETER_TOKEN * values)

    def best_loss(self, flops: float) -> float:
        """Return the loss at the optimum of ``flops``."""
        return self.loss(self.optimum(flops))

    def loss(self, size: Size) -> float:
        """Return the loss of any run."""
        return float(
            self.floor
            + self.parameter_factor / size.parameters**self.parameter_exponent
            + self.token_factor / size.tokens**self.token_exponent
        )

    def budget_of_loss(self, loss: float) -> float | None:
        """Return the least FLOPs that reach ``loss``: beyond E the best loss is a power of C."""
        if loss <= self.floor:
            return None
        total = self.parameter_exponent + self.token_exponent
        exponent = self.parameter_exponent * self.token_exponent / total
        return float(((self.best_loss(1.0) - self.floor) / (loss - self.floor)) ** (1.0 / exponent))


@dataclass(frozen=True)
class PowerLaw(Law):
    """D = k C^b, N = C / 6D; with a loss of the best runs where ``loss_flops`` is known."""

    factor: float
    exponent: float
    loss_flops: float | None = None
    """FLOPs at which (loss_flops / C)^loss_exponent is 1."""

    loss_exponent: float = 0.0

    def optimum(self, flops: float) -> Size:
        """Return D = k C^b, and what C is left for N."""
        return Size.of_budget(flops, tokens=self.factor * flops**self.exponent)

    def budget_for_parameters(self, parameters: float) -> float:
        """Return the FLOPs for which so many ``parameters`` are best."""
        scaled = parameters * FLOPS_PER_PARAMETER_TOKEN * self.factor
        return float(scaled ** (1.0 / (1.0 - self.exponent)))

    def budget_for_tokens(self, tokens: float) -> float:
        """Return the FLOPs for which so many ``tokens`` are best."""
        return float((tokens / self.factor) ** (1.0 / self.exponent))

    def best_loss(self, flops: float) -> float | None:
        """Return the loss at the optimum of ``flops``; None where the law has none."""
        return None if self.loss_flops is None else float((self.loss_flops / flops) ** self.loss_exponent)

    def loss(self, size: Size) -> None:
        """Return nothing: losses beside the optimum are not known."""

    def budget_of_loss(self, loss: float) -> float | None:
        """Return the least FLOPs that reach ``loss``."""
        if self.loss_flops is None or loss <= 0.0:
            return None
        return float(self.loss_flops / loss ** (1.0 / self.loss_exponent))


_MASSIVETEXT = "MassiveText, SentencePiece of 32,000"
_HOFFMANN_FLOPS = (6e18, 3e21)


def _through(*, parameters: float, flops: float, exponent: float) -> tuple[float, float]:
    """Return k and b of D = k C^b, where N goes with C^exponent and is ``parameters`` at ``flops``."""
    size = Size(parameters, flops / (FLOPS_PER_PARAMETER_TOKEN * parameters))
    return size.tokens / flops ** (1.0 - exponent), 1.0 - exponent


LAWS: tuple[Law, ...] = (
    PowerLaw(
        "hoffmann-1",
        "Hoffmann et al. 2022 (Chinchilla), arXiv 2203.15556, approach 1: N ~ C^0.50, through 1B at 1.21e20 of table 3",
        "all",
        _MASSIVETEXT,
        _HOFFMANN_FLOPS,
        *_through(parameters=1e9, flops=1.21e20, exponent=0.50),
    ),
    PowerLaw(
        "hoffmann-2",
        "Hoffmann et al. 2022, approach 2: N ~ C^0.49, through 1B at 1.20e20 of table A3",
        "all",
        _MASSIVETEXT,
        _HOFFMANN_FLOPS,
        *_through(parameters=1e9, flops=1.20e20, exponent=0.49),
    ),
    LossLaw(
        "hoffmann-3",
        "Hoffmann et al. 2022, approach 3, with the digits of its TeX source; the rounded 0.34 and 0.28 of the text "
        "miss its own table A3 by 20 %",
        "all",
        _MASSIVETEXT,
        _HOFFMANN_FLOPS,
        floor=1.6934,
        parameter_factor=406.4,
        token_factor=410.7,
        parameter_exponent=0.3392,
        token_exponent=0.2849,
    ),
    LossLaw(
        "besiroglu",
        "Besiroglu et al. 2024, arXiv 2404.10102: approach 3 fitted anew to data read off the plots of Hoffmann et al.",
        "all",
        _MASSIVETEXT,
        _HOFFMANN_FLOPS,
        floor=1.8172,
        parameter_factor=482.01,
        token_factor=2085.43,
        parameter_exponent=0.3478,
        token_exponent=0.3658,
    ),
    PowerLaw(
        "kaplan",
        "Kaplan et al. 2020, arXiv 2001.08361, equation 1.3 and appendix A: N = 1.3e9 (C / PF-day)^0.73, "
        "L = (3.1e8 PF-days / C)^0.050, at small batches; known to train too large models for too short",
        "without_embeddings",
        "WebText2, GPT-2's BPE of 50,257",
        None,
        *_through(parameters=1.3e9, flops=PF_DAY, exponent=0.73),
        loss_flops=3.1e8 * PF_DAY,
        loss_exponent=0.050,
    ),
    PowerLaw(
        "llama3",
        "Llama team 2024, arXiv 2407.21783, section 3.2.1 and figure 3: D = 0.299 C^0.537",
        "all",
        "Llama 3's mixture, BPE of 128,000",
        (6e18, 1e22),
        factor=0.299,
        exponent=0.537,
    ),
    PowerLaw(
        "deepseek",
        "DeepSeek-AI 2024, arXiv 2401.02954, section 3.2: D = 5.8316 C^0.4757, with 0.1715 C^0.5243 FLOPs a token",
        "compute",
        "Chinese and English, byte-level BPE of 102,400",
        (1e17, 3e20),
        factor=5.8316,
        exponent=0.4757,
    ),
)
"""Every law that can be asked."""


def deepseek_learning_rate(flops: float) -> float:
    """Return the best peak learning rate of AdamW for a budget.

    Source: DeepSeek-AI 2024, arXiv 2401.02954, equation 1.
    """
    return float(0.3118 * flops**-0.1250)


def deepseek_batch_tokens(flops: float) -> float:
    """Return the best tokens a step for a budget.

    Source: DeepSeek-AI 2024, arXiv 2401.02954, equation 1.
    """
    return float(0.2920 * flops**0.3271)
