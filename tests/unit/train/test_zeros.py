"""Which zeros a run may hold, and that gradients of others are left alone."""

from collections.abc import Iterator

import pytest
import torch

from gptdist.checkpoint.fragments import OptimizerFragments
from gptdist.config.optimization import OptimizerConfig
from gptdist.errors import CheckpointError
from gptdist.model.parameters import local_parameters
from gptdist.train.run import TrainState
from gptdist.train.zeros import count_zeros, hold_zeros, zeros_to_hold
from tests.unit.compress.small_models import megatron_model, trained

MATRIX = "decoder.layers.1.mlp.linear_fc1.weight"


@pytest.fixture
def held() -> Iterator[tuple]:
    """A network whose one matrix has seven zeros, and biases that are zero; its fragments and its mesh."""
    model = trained()
    model.weights[MATRIX][0, :7] = 0.0
    model.weights["decoder.layers.0.mlp.linear_fc1.bias"].zero_()
    with megatron_model(model) as (network, mesh):
        locals_ = list(local_parameters(network, model.config, 1, 0))
        yield network, OptimizerFragments(torch.optim.AdamW(network.parameters()), locals_, OptimizerConfig()), mesh


def test_zeros_of_matrices_are_counted_and_noted_ones_must_be_there(held) -> None:
    _, fragments, mesh = held
    assert count_zeros(fragments, mesh) == {MATRIX: 7}
    assert zeros_to_hold(fragments, mesh, TrainState()) == {MATRIX: 7}
    assert zeros_to_hold(fragments, mesh, TrainState(step=3, zeros={MATRIX: 6})) == {MATRIX: 7}
    with pytest.raises(CheckpointError, match=rf"{MATRIX} has 7 zeros, 8 in the checkpoint's notes; use an older"):
        zeros_to_hold(fragments, mesh, TrainState(step=3, zeros={MATRIX: 8}))
    with pytest.raises(CheckpointError, match="step 3 was saved without it, its zeros are gone; leave it false, or"):
        zeros_to_hold(fragments, mesh, TrainState(step=3))


def test_a_model_without_zeros_is_refused(held) -> None:
    network, fragments, mesh = held
    with torch.no_grad():
        dict(network.named_parameters())[MATRIX][0, :7] = 1.0
    with pytest.raises(CheckpointError, match="no weight of a linear matrix is zero; begin with a pruned checkpoint"):
        zeros_to_hold(fragments, mesh, TrainState())


def test_other_gradients_are_left_alone(held) -> None:
    network, _, _ = held
    tokens, positions = torch.arange(24).view(1, 24), torch.arange(24).view(1, 24)

    def gradients() -> dict[str, torch.Tensor]:
        network.zero_grad()
        network(tokens, positions, None, labels=tokens.roll(-1)).backward()
        return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}

    before = gradients()
    hold_zeros(network)
    after = gradients()
    assert before[MATRIX][0, :7].all()
    assert not after[MATRIX][0, :7].any()
    before[MATRIX][0, :7] = 0.0
    for name, gradient in before.items():
        assert torch.equal(gradient, after[name]), name
