"""Our optimizers against torch's, or against their papers written out value by value."""

import pytest
import torch

from gptdist.config.optimization import OptimizerConfig
from gptdist.train import optimizers
from gptdist.train.optimizers import new_optimizer

STEPS = 5


def _updated(settings: OptimizerConfig, optimizer=None, shape=(7, 5)) -> tuple[torch.Tensor, dict]:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(shape))
    groups = [{"params": [weight], "lr": settings.lr, "weight_decay": settings.weight_decay}]
    optimizer = (optimizer or new_optimizer)(groups, settings)
    for _ in range(STEPS):
        weight.grad = torch.randn(shape)
        optimizer.step()
    return weight.detach(), optimizer.state[weight]


def test_lion_is_the_papers_algorithm() -> None:
    torch.manual_seed(0)
    weight = torch.randn(7, 5).double()
    mean = torch.zeros_like(weight)
    for _ in range(STEPS):
        grad = torch.randn(7, 5).double()
        weight -= 1e-2 * ((0.9 * mean + 0.1 * grad).sign() + 0.5 * weight)
        mean = 0.99 * mean + 0.01 * grad
    seen, state = _updated(OptimizerConfig(kind="lion", lr=1e-2, weight_decay=0.5))
    assert torch.allclose(seen.double(), weight, atol=1e-6)
    assert torch.allclose(state["exp_avg"].double(), mean, atol=1e-6)
    assert set(state) == {"exp_avg"}


@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_adamw_of_small_moments_is_torchs_but_for_their_rounding(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "CHUNK_NUMEL", chunk)
    settings = OptimizerConfig(lr=1e-2, moment_precision="bf16")
    exact, _ = _updated(OptimizerConfig(lr=1e-2))
    wide, _ = _updated(
        settings, lambda groups, its: optimizers.SmallAdamW(groups, its.betas, its.epsilon, torch.float32)
    )
    assert torch.allclose(wide, exact, atol=1e-6, rtol=0)
    rounded, state = _updated(settings)
    assert {state["exp_avg"].dtype, state["exp_avg_sq"].dtype} == {torch.bfloat16}
    assert 1e-6 < (rounded - exact).abs().max() < 0.01 * STEPS * 1e-2
