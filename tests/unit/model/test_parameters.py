"""Logical tensors: initial values know no layout, slices put together are the whole."""

import math

import pytest
import torch

from gptdist.config.model import ModelConfig
from gptdist.model.parameters import (
    LocalParameter,
    LogicalTensor,
    derived_seed,
    initial_std,
    initial_values,
    local_slice,
    lr_scale,
    split_dim,
)
from tests.support.datasets import GPT2

CONFIG = ModelConfig(**GPT2)


def _logical(name: str, outer: int = 1, length: int = 6, inner: int = 4, split: bool = True) -> LogicalTensor:
    return LogicalTensor(name, (outer * length, inner), outer, length, inner, split)


@pytest.mark.parametrize("outer", [1, 2, 5])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_slices_put_together_are_the_whole(outer: int, ranks: int) -> None:
    logical = _logical("x", outer=outer)
    whole = torch.arange(outer * 6 * 4, dtype=torch.float32).view(logical.box())
    length = 6 // ranks
    slices = [
        local_slice(whole, LocalParameter(torch.nn.Parameter(), logical, rank * length, length))
        for rank in range(ranks)
    ]
    together = torch.cat([piece.view(outer, length, 4) for piece in slices], dim=1)
    assert torch.equal(together, whole)


def test_padding_of_the_vocabulary_is_zero_and_counted_out() -> None:
    logical = _logical("embedding.word_embeddings.weight", length=5)
    whole = torch.ones(logical.box())
    first, last, beyond = (LocalParameter(torch.nn.Parameter(), logical, start, 3) for start in (0, 3, 6))
    assert [local.valid_length for local in (first, last, beyond)] == [3, 2, 0]
    assert local_slice(whole, last).view(3, 4).sum(dim=1).tolist() == [4, 4, 0]
    assert local_slice(whole, beyond).sum() == 0


def test_initial_values_depend_on_seed_and_name_alone() -> None:
    logical = _logical("decoder.layers.0.mlp.linear_fc1.weight", length=500, inner=200)
    first = initial_values(logical, CONFIG, seed=1)
    torch.manual_seed(99)
    assert torch.equal(initial_values(logical, CONFIG, seed=1), first)
    assert not torch.equal(initial_values(logical, CONFIG, seed=2), first)
    other = _logical("decoder.layers.1.mlp.linear_fc1.weight", length=500, inner=200)
    assert not torch.equal(initial_values(other, CONFIG, seed=1), first)
    assert first.std().item() == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize("name", ["self_attention.linear_proj.weight", "mlp.linear_fc2.weight"])
def test_writers_of_the_residual_stream_start_smaller(name: str) -> None:
    values = initial_values(_logical(f"decoder.layers.0.{name}", length=500, inner=200), CONFIG, seed=1)
    assert values.std().item() == pytest.approx(0.02 / math.sqrt(2 * CONFIG.num_layers), rel=0.02)


@pytest.mark.parametrize(
    ("changes", "name", "std"),
    [
        ({"init": "small"}, "mlp.linear_fc1.weight", math.sqrt(2 / (5 * 32))),
        ({"init": "small"}, "mlp.linear_fc2.weight", 2 / (2 * math.sqrt(32))),
        ({"init": "mup", "mup_base_hidden_size": 8}, "mlp.linear_fc1.weight", 0.02 / 2),
        ({"init": "mup", "mup_base_hidden_size": 8}, "self_attention.linear_proj.weight", 0.02 / math.sqrt(4) / 2),
    ],
)
def test_other_initialisations(changes: dict[str, object], name: str, std: float) -> None:
    config = ModelConfig(**(GPT2 | changes))
    values = initial_values(_logical(f"decoder.layers.0.{name}", length=500, inner=200), config, seed=1)
    assert values.std().item() == pytest.approx(std, rel=0.02)


def test_mup_leaves_embeddings_and_vectors_alone() -> None:
    config = ModelConfig(**(GPT2 | {"init": "mup", "mup_base_hidden_size": 8}))
    for name in ("embedding.word_embeddings.weight", "output_layer.weight"):
        assert (initial_std(name, config), lr_scale(name, config)) == (0.02, 1.0)
    for name in ("mlp.linear_fc1.bias", "input_layernorm.weight", "self_attention.q_layernorm.weight"):
        assert lr_scale(f"decoder.layers.0.{name}", config) == 1.0
    assert lr_scale("decoder.layers.0.mlp.linear_fc1.weight", config) == 0.25


def test_norms_start_at_one_and_biases_at_zero() -> None:
    assert initial_values(_logical("decoder.layers.0.input_layernorm.weight"), CONFIG, 1).eq(1).all()
    assert initial_values(_logical("decoder.layers.0.input_layernorm.bias"), CONFIG, 1).eq(0).all()
    assert initial_values(_logical("decoder.layers.0.mlp.linear_fc1.bias"), CONFIG, 1).eq(0).all()


def test_what_is_split() -> None:
    assert split_dim("decoder.layers.3.mlp.linear_fc2.weight") == 1
    assert split_dim("decoder.layers.3.mlp.linear_fc1.bias") == 0
    assert split_dim("decoder.layers.3.mlp.linear_fc2.bias") is None
    assert split_dim("embedding.position_embeddings.weight") is None


def test_seeds_are_far_apart() -> None:
    seeds = {derived_seed(1, "dropout", sample) for sample in range(1000)} | {derived_seed(2, "dropout", 0)}
    assert len(seeds) == 1001
    assert all(0 <= seed < 2**63 for seed in seeds)
