"""The optimizers that torch lacks, or has only for moments in fp32.

Each here works value by value, so that it may be given any piece of a weight: ZeRO hands it flat ranges of many. Those
that look at whole matrices have files of their own.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gptdist.config.optimization import OptimizerConfig
from gptdist.train.adafactor import Adafactor
from gptdist.train.muon import Muon

CHUNK_NUMEL = 1 << 20
"""Values updated at a time: what is computed in between is of this size, not of the weights'."""


def new_optimizer(groups: list[dict[str, Any]], settings: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimizer of ``settings`` over parameter groups that have ``lr`` and ``weight_decay`` of their own.

    AdamW is torch's fused kernel: on CPU 6 to 8 times as fast as its foreach one, and nothing has to be compiled.
    """
    moment_type = torch.bfloat16 if settings.moment_precision == "bf16" else torch.float32
    if settings.kind == "muon":
        return Muon(groups, settings)
    if settings.kind == "adafactor":
        return Adafactor(groups)
    if settings.kind == "lion":
        return Lion(groups, settings.betas, moment_type)
    if moment_type != torch.float32:
        return SmallAdamW(groups, settings.betas, settings.epsilon, moment_type)
    return torch.optim.AdamW(groups, betas=settings.betas, eps=settings.epsilon, fused=True)


class ValueWise(torch.optim.Optimizer):
    """Walks over the weights in chunks; moments are in a format of their own."""

    moments: tuple[str, ...]
    """Names of what is kept of every value."""

    def __init__(self, groups: list[dict[str, Any]], moment_type: torch.dtype, **defaults: Any) -> None:
        """Optimize ``groups``."""
        super().__init__(groups, defaults)
        self._moment_type = moment_type

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # takes no closure
        """Update every weight that has a gradient."""
        assert closure is None, "the loss is not computed again"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(group, parameter)

    def _step_one(self, group: dict[str, Any], parameter: Tensor) -> None:
        state = self.state[parameter]
        for moment in self.moments:
            if moment not in state:
                state[moment] = torch.zeros_like(parameter, dtype=self._moment_type)
        assert parameter.grad is not None, "asked before"
        tensors = [parameter, parameter.grad, *(state[moment] for moment in self.moments)]
        settings = {**group, **self._count(state)}
        for chunk in zip(*(tensor.reshape(-1).split(CHUNK_NUMEL) for tensor in tensors), strict=True):
            self._update(settings, *chunk)

    def _count(self, state: dict[str, Any]) -> dict[str, int]:
        """Return what changes from update to update."""
        return {}

    @abstractmethod
    def _update(self, settings: dict[str, Any], weight: Tensor, grad: Tensor, *moments: Tensor) -> None:
        """Update one chunk in place."""


class Lion(ValueWise):
    """Moves every weight by the learning rate, in the direction of a mean of gradients.

    Source: Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", arXiv 2302.06675, algorithm 2.
    """

    moments = ("exp_avg",)

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float], moment_type: torch.dtype) -> None:
        """Optimize ``groups``."""
        super().__init__(groups, moment_type, betas=betas)

    def _update(self, settings: dict[str, Any], weight: Tensor, grad: Tensor, *moments: Tensor) -> None:
        (exp_avg,) = moments
        beta1, beta2 = settings["betas"]
        mean = exp_avg.float()
        direction = mean.lerp(grad, 1 - beta1).sign_()
        weight.mul_(1 - settings["lr"] * settings["weight_decay"]).add_(direction, alpha=-settings["lr"])
        exp_avg.copy_(mean.lerp_(grad, 1 - beta2))


class SmallAdamW(ValueWise):
    """AdamW that keeps its moments in 16 bits and computes in 32.

    Source: Loshchilov and Hutter 2019, arXiv 1711.05101; moments in bf16: DeepSeek-AI 2024, "DeepSeek-V3 Technical
    Report", arXiv 2412.19437, section 3.3.3.
    """

    moments = ("exp_avg", "exp_avg_sq")

    def __init__(
        self, groups: list[dict[str, Any]], betas: tuple[float, float], eps: float, moment_type: torch.dtype
    ) -> None:
        """Optimize ``groups``."""
        super().__init__(groups, moment_type, betas=betas, eps=eps)

    def _count(self, state: dict[str, Any]) -> dict[str, int]:
        state["step"] = state.get("step", torch.tensor(0.0)) + 1
        return {"step": int(state["step"])}

    def _update(self, settings: dict[str, Any], weight: Tensor, grad: Tensor, *moments: Tensor) -> None:
        exp_avg, exp_avg_sq = moments
        (beta1, beta2), step = settings["betas"], settings["step"]
        mean = exp_avg.float().lerp(grad, 1 - beta1)
        square = exp_avg_sq.float().mul(beta2).addcmul_(grad, grad, value=1 - beta2)
        exp_avg.copy_(mean)
        exp_avg_sq.copy_(square)
        root = square.sqrt_().div_(math.sqrt(1 - beta2**step)).add_(settings["eps"])
        weight.mul_(1 - settings["lr"] * settings["weight_decay"])
        weight.addcdiv_(mean, root, value=-settings["lr"] / (1 - beta1**step))
