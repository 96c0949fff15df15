"""SparseGPT against its definition: inverses of the products that are left, computed anew for every column."""

import pytest
import torch
from torch import Tensor

from gptdist.compress.prune.options import Pattern, WeightOptions
from gptdist.compress.prune.sparsegpt import InputProducts
from gptdist.compress.prune.wanda import InputNorms


def _inputs(width: int, tokens: int = 400) -> Tensor:
    """Inputs that depend on each other, of different sizes."""
    generator = torch.Generator().manual_seed(width)
    mixed = torch.randn(tokens, width, generator=generator) @ torch.randn(width, width, generator=generator)
    return mixed * torch.rand(width, generator=generator)


def _matrix(rows: int, width: int) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(1))


def _defined(matrix: Tensor, x: Tensor, size: int, choose) -> Tensor:
    """The paper's algorithm with the optimal update of everything behind a column, one inverse a column, in fp64."""
    products = (x.t() @ x).double()
    products += 0.01 * products.diagonal().mean() * torch.eye(x.shape[1])
    weights, width = matrix.double(), matrix.shape[1]
    inverses = [torch.linalg.inv(products[column:, column:]) for column in range(width)]
    costs = torch.stack([inverse[0, 0] for inverse in inverses])
    for begin in range(0, width, size):
        block = slice(begin, min(begin + size, width))
        gone = choose(weights[:, block].square() / costs[block])
        for column in range(block.start, block.stop):
            error = weights[:, column] * gone[:, column - begin]
            weights[:, column:] -= error[:, None] * inverses[column][0] / costs[column]
    return weights


def _lowest(costs: Tensor, count: int) -> Tensor:
    return costs <= costs.flatten().kthvalue(count)[0]


@pytest.mark.parametrize(("width", "ratio"), [(40, 0.5), (300, 0.7)])
def test_weights_are_those_of_the_definition(width: int, ratio: float) -> None:
    matrix, x = _matrix(6, width), _inputs(width)
    seen = InputProducts(width, x.device)
    for part in x.split(150):
        seen.add(part)
    found = seen.prune(matrix, WeightOptions(method="sparsegpt", ratio=ratio))
    expected = _defined(matrix, x, 128, lambda costs: _lowest(costs, round(ratio * costs.numel())))
    assert torch.equal(found == 0, expected.abs() < 1e-9)
    torch.testing.assert_close(found.double(), expected, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("pattern", [Pattern(2, 4), Pattern(1, 6)], ids=str)
def test_with_a_pattern_groups_are_chosen_one_after_the_other(pattern: Pattern) -> None:
    matrix, x = _matrix(6, 132), _inputs(132)
    seen = InputProducts(132, x.device)
    seen.add(x)
    found = seen.prune(matrix, WeightOptions(method="sparsegpt", pattern=str(pattern)))
    count = pattern.of - pattern.kept
    expected = _defined(matrix, x, pattern.of, lambda costs: torch.stack([_lowest(row, count) for row in costs]))
    assert torch.equal(found == 0, expected.abs() < 1e-9)
    torch.testing.assert_close(found.double(), expected, atol=2e-3, rtol=2e-3)


def test_the_others_make_up_for_the_first_as_least_squares_do() -> None:
    matrix, x = _matrix(5, 20), _inputs(20)
    matrix[:, :8] *= 1e-3
    seen = InputProducts(20, x.device)
    seen.add(x)
    found = seen.prune(matrix, WeightOptions(method="sparsegpt", ratio=0.4))
    assert ((found == 0).sum(1) == 8).all()
    damped = torch.cat([x, (0.01 * x.square().sum(0).mean()).sqrt() * torch.eye(20)]).double()
    best = torch.linalg.lstsq(damped[:, 8:], damped @ matrix.double().t()).solution.t()
    torch.testing.assert_close(found[:, 8:].double(), best, atol=1e-4, rtol=1e-4)


def test_it_changes_outputs_less_than_wanda_and_that_less_than_magnitude() -> None:
    generator = torch.Generator().manual_seed(0)
    few = torch.randn(400, 12, generator=generator) @ torch.randn(12, 96, generator=generator)
    x = (few + 0.5 * torch.randn(400, 96, generator=generator)) * torch.rand(96, generator=generator)
    matrix = _matrix(32, 96)
    products, norms = InputProducts(96, x.device), InputNorms(96, x.device)
    products.add(x)
    norms.add(x)
    options = WeightOptions(ratio=0.5)
    by_size = matrix.masked_fill(matrix.abs() < matrix.abs().median(), 0.0)
    errors = [
        float((x @ (matrix - pruned).t()).square().mean())
        for pruned in (products.prune(matrix, options), norms.prune(matrix, options), by_size)
    ]
    assert errors[0] < 0.5 * errors[1]
    assert errors[1] < 0.9 * errors[2]


def test_weights_of_inputs_that_are_always_zero_go_first_and_do_no_harm() -> None:
    matrix, x = _matrix(6, 40), _inputs(40)
    x *= 1e-3  # smaller than what stands for inputs that are zero
    x[:, 5::10] = 0.0
    seen = InputProducts(40, x.device)
    seen.add(x)
    found = seen.prune(matrix, WeightOptions(method="sparsegpt", ratio=0.5))
    assert torch.isfinite(found).all()
    assert not found[:, 5::10].any()
    assert int((found == 0).sum()) == 120
    alive = [column for column in range(40) if column % 10 != 5]
    assert (found[:, alive] == 0).float().mean() == pytest.approx(96 / 216)
