"""Which experts a token takes, and the losses that keep the router in order.

Letters: t tokens, h hidden, e experts, k experts a token.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from torch import Tensor, nn

from gptdist.config.moe import MoeConfig


class LossGradient:
    """The gradient that the loss of the forward pass at hand is given: what other losses have to be given too.

    It holds the scales of micro batches and of the number format, which whoever calls backward multiplies in. The loss
    comes first in the backward pass, so the layers find it there.
    """

    def __init__(self) -> None:
        """Begin without one."""
        self.value: Tensor | None = None

    def watch(self, loss: Tensor) -> Tensor:
        """Return ``loss``, and remember its gradient in the backward pass."""
        watched: Tensor = _Watched.apply(loss, self)
        return watched


class _Watched(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, seen: LossGradient) -> Tensor:
        ctx.seen = seen
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        ctx.seen.value = grads[0]
        return grads[0], None


class _WithLoss(torch.autograd.Function):
    """Its first argument unchanged; the second is given the loss's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Tensor, seen: LossGradient) -> Tensor:
        ctx.seen = seen
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None]:
        assert ctx.seen.value is not None, "a router's backward pass came before the loss's"
        return grads[0], ctx.seen.value.float(), None


class Router(nn.Module):
    """One logit an expert for each token."""

    def __init__(self, num_experts: int, hidden_size: int) -> None:
        """Make the matrix; its values are not initialised."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits. Shapes: [s, b, h] -> [s, b, e]."""
        return F.linear(x, self.weight)


@dataclass(frozen=True)
class Routes:
    """Where tokens go."""

    experts: Tensor
    """[t, k], the best first."""

    weights: Tensor
    """[t, k] fp32, what each expert's output is multiplied by."""

    load: Tensor
    """[e], tokens that took each expert."""


def choose_experts(logits: Tensor, config: MoeConfig, seen: LossGradient | None) -> Routes:
    """Return the experts of each token, the balance losses in the gradient of the weights.

    Args:
        logits: [t, e] of all tokens of a micro batch: the losses are of these tokens together.
        config: of the experts.
        seen: the loss's gradient; None leaves the balance losses out.

    Source: Shazeer et al. 2017, section 2.1; load balancing: Fedus et al. 2022 (Switch Transformers), section 2.2,
    with all k choices counted; router z-loss: Zoph et al. 2022 (ST-MoE), section 3.
    """
    logits = logits.float()
    probabilities = logits.softmax(dim=-1)
    weights, experts = probabilities.topk(config.experts_per_token, dim=-1)
    load = torch.bincount(experts.flatten(), minlength=config.num_experts)
    if config.normalize_weights:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    if seen is not None and (config.aux_loss or config.router_z_loss):
        weights = _WithLoss.apply(weights, balance_loss(logits, probabilities, load, config), seen)
    return Routes(experts, weights, load)


def balance_loss(logits: Tensor, probabilities: Tensor, load: Tensor, config: MoeConfig) -> Tensor:
    """Return aux_loss x experts x sum over experts of (share of the choices x mean probability), plus the z-loss.

    Shapes: logits and probabilities [t, e], load [e] -> [].
    """
    share = load / load.sum()
    loss = config.aux_loss * config.num_experts * (share * probabilities.mean(dim=0)).sum()
    if config.router_z_loss:
        loss = loss + config.router_z_loss * logits.logsumexp(dim=-1).square().mean()
    return loss
