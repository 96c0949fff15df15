"""Whether an exported model computes the trained model's function, judged by its logits."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from gptdist.errors import ExportError

TOLERANCE = 5e-5
"""Largest difference of two logits, relative to the largest logit where that is above 1. Right mappings of small fp32
models came out below 1.1e-5, wrong ones above 1.6e-3."""

ROUNDING_MARGIN = 4.0
"""Where two right implementations differ by more than TOLERANCE, as deep models or very large activations make them,
they may differ by this many times the rounding that was measured: each of the two has its own."""

MAX_TOLERANCE = 1e-3
"""No measured rounding excuses a larger difference than this, relative as TOLERANCE is."""


@dataclass(frozen=True)
class Parity:
    """Two models' logits on the same tokens, compared."""

    max_abs_difference: float
    max_abs_logit: float
    argmax_agreement: float
    """Fraction of the positions where both models find the same token likeliest."""
    positions: int
    rounding: float | None = None
    """Largest difference between the exported model in fp32 and in fp64; measured only where TOLERANCE is exceeded."""

    @property
    def allowed_difference(self) -> float:
        """The largest difference that passes."""
        scale = max(1.0, self.max_abs_logit)
        if self.rounding is None or not math.isfinite(self.rounding):
            return TOLERANCE * scale
        return max(TOLERANCE * scale, min(ROUNDING_MARGIN * self.rounding, MAX_TOLERANCE * scale))

    @property
    def is_equal(self) -> bool:
        """Whether the two models are the same function; never true of numbers that are not finite."""
        return math.isfinite(self.max_abs_logit) and self.max_abs_difference <= self.allowed_difference

    def tree(self) -> dict[str, float | int | None]:
        """Return the figures as plain data."""
        return asdict(self) | {"allowed_difference": self.allowed_difference}


def compare_logits(trained: torch.Tensor, exported: torch.Tensor) -> Parity:
    """Compare two models' logits.

    Shapes: both [b, s, v].
    """
    assert trained.shape == exported.shape, f"logits {tuple(trained.shape)} and {tuple(exported.shape)}"
    return Parity(
        max_abs_difference=float((trained - exported).abs().max()),
        max_abs_logit=float(trained.abs().max()),
        argmax_agreement=float((trained.argmax(-1) == exported.argmax(-1)).float().mean()),
        positions=trained.shape[0] * trained.shape[1],
    )


def measure_rounding(model: Any, tokens: torch.Tensor, logits: torch.Tensor) -> float:
    """Return how far fp32 ``logits`` are from the same model's in fp64; the model stays in fp64.

    Shapes: tokens [b, s], logits [b, s, v].
    """
    with torch.inference_mode():
        return float((model.double()(tokens).logits - logits).abs().max())


def require_equal(parity: Parity, where: str) -> None:
    """Refuse an exported model that is not the trained one.

    Raises:
        ExportError: the logits differ by more than rounding; with the figures.
    """
    if not parity.is_equal:
        raise ExportError(
            f"{where}: logits differ from the trained model's by up to {parity.max_abs_difference:.3g} "
            f"(allowed {parity.allowed_difference:.3g}, largest logit {parity.max_abs_logit:.3g}, same likeliest token "
            f"at {parity.argmax_agreement:.1%} of {parity.positions} positions); nothing was written, report it with "
            f"the model section of the config"
        )
