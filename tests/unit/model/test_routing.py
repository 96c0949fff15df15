"""Routing of tokens and experts' arithmetic, against loops that are read off the papers."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from torch import Tensor

from gptdist.config.model import ModelConfig
from gptdist.config.moe import MoeConfig
from gptdist.model.experts import Experts, _collect, _spread
from gptdist.model.routing import LossGradient, balance_loss, choose_experts
from tests.support.datasets import MOE

TOKENS, EXPERTS = 50, 5


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("k", [1, 3])
def test_each_token_takes_its_best_experts(k: int, normalize: bool) -> None:
    logits = random(TOKENS, EXPERTS).detach().float()
    config = MoeConfig(num_experts=EXPERTS, experts_per_token=k, normalize_weights=normalize)
    routes = choose_experts(logits, config, None)
    for row, experts, weights in zip(logits.softmax(-1), routes.experts, routes.weights, strict=True):
        best = sorted(range(EXPERTS), key=lambda e: -row[e])[:k]
        assert experts.tolist() == best
        scale = row[best].sum() if normalize else 1.0
        assert torch.allclose(weights, row[best] / scale)
    assert routes.load.sum() == TOKENS * k


def test_balance_loss_is_the_papers() -> None:
    logits = random(TOKENS, EXPERTS, seed=1)
    config = MoeConfig(num_experts=EXPERTS, experts_per_token=2, aux_loss=0.3, router_z_loss=0.2)
    chosen = [sorted(range(EXPERTS), key=lambda e: -row[e])[:2] for row in logits]
    expected = torch.zeros((), dtype=torch.float64)
    for expert in range(EXPERTS):
        share = sum(expert in row for row in chosen) / (2 * TOKENS)
        expected = expected + 0.3 * EXPERTS * share * sum(row.softmax(-1)[expert] for row in logits) / TOKENS
    expected = expected + 0.2 * sum(torch.log(row.exp().sum()) ** 2 for row in logits) / TOKENS
    load = torch.bincount(torch.tensor(chosen).flatten(), minlength=EXPERTS)
    assert torch.allclose(balance_loss(logits, logits.softmax(-1), load, config), expected)


def test_even_routing_has_a_loss_of_one_and_uneven_more() -> None:
    config = MoeConfig(num_experts=4, experts_per_token=1, aux_loss=1.0)
    even = 9.0 * torch.eye(4)
    for logits, low, high in ((even, 0.999, 1.001), (even[:1].repeat(4, 1), 3.9, 4.0)):
        load = choose_experts(logits, config, None).load
        assert low < float(balance_loss(logits, logits.softmax(-1), load, config)) < high


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_balance_losses_are_in_the_gradient_alone_with_the_losss_scale(scale: float) -> None:
    config = MoeConfig(num_experts=EXPERTS, aux_loss=0.5, router_z_loss=0.1)
    target = random(TOKENS, 2, seed=3).detach().float()

    def run(seen: LossGradient | None) -> tuple[Tensor, Tensor, Tensor]:
        logits = random(TOKENS, EXPERTS, seed=2).detach().float().requires_grad_()
        routes = choose_experts(logits, config, seen)
        loss = (routes.weights * target).sum()
        extra = balance_loss(logits, logits.softmax(-1), routes.load, config)
        ((seen.watch(loss) if seen else loss + extra) * scale).backward()
        assert logits.grad is not None
        return loss.detach(), extra.detach(), logits.grad

    loss, _, found = run(LossGradient())
    same, extra, expected = run(None)
    assert loss == same
    assert extra > 0.1
    assert torch.allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize("activation", ["swiglu", "gelu"])
def test_experts_equal_a_loop_over_tokens(activation: str) -> None:
    model = ModelConfig(**(MOE | {"activation": activation, "moe": {"num_experts": 3, "ffn_hidden_size": 12}}))
    act = F.silu if activation == "swiglu" else F.gelu
    experts = Experts(3, model, act).double()
    with torch.no_grad():
        experts.linear_fc1.weight.copy_(random(*experts.linear_fc1.weight.shape, seed=4))
        experts.linear_fc2.weight.copy_(random(*experts.linear_fc2.weight.shape, seed=5))
    rows = [4, 0, 3]

    def plain(x: Tensor) -> Tensor:
        out = []
        for row, expert in zip(x, [0] * 4 + [2] * 3, strict=True):
            inner = experts.linear_fc1.weight[expert] @ row
            inner = act(inner[:12]) * inner[12:] if activation == "swiglu" else act(inner)
            out.append(experts.linear_fc2.weight[expert] @ inner)
        return torch.stack(out)

    results: list[list[Any]] = []
    for compute in (lambda x: experts(x, rows), plain):
        experts.zero_grad()
        x = random(7, 32, seed=6)
        out = compute(x)
        out.square().sum().backward()
        results.append([out, x.grad, *(parameter.grad for parameter in experts.parameters())])
    assert all(torch.allclose(ours, theirs) for ours, theirs in zip(*results, strict=True))
    assert experts.linear_fc1.weight.grad is not None
    assert experts.linear_fc1.weight.grad[1].eq(0).all(), "an expert that nobody took"


def test_spreading_and_collecting_are_each_others_transpose() -> None:
    pairs = torch.tensor([5, 0, 3, 2])  # of 3 tokens x 2
    assert torch.autograd.gradcheck(lambda x: _spread(x, pairs, 2), random(3, 4))
    assert torch.autograd.gradcheck(lambda rows: _collect(rows, pairs, 2, 3), random(4, 4))
    rows = _spread(random(3, 4), pairs, 2)
    assert torch.equal(rows, random(3, 4)[[2, 0, 1, 1]])
    assert torch.equal(_collect(rows, pairs, 2, 3)[1], rows[2] + rows[3])
