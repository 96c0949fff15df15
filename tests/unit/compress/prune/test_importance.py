"""Importance of units against a dense computation, and losses of models with parts left out."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from torch import Tensor

from gptdist.compress.prune import measure
from gptdist.compress.prune.importance import Aggregate, ImportanceOptions, losses_without, measure_importance
from gptdist.compress.prune.measure import mean_loss, sliced_model
from gptdist.compress.prune.shape import Shape, chosen_units
from gptdist.compress.prune.slicing import everything
from gptdist.errors import CheckpointError
from gptdist.mesh.groups import Mesh
from gptdist.model.gpt import LanguageModel
from tests.unit.compress.prune.test_slicing import SECTIONS
from tests.unit.compress.small_models import TrainedModel, megatron_model, trained

ROWS = np.random.default_rng(3).integers(0, 257, (5, 24))
LAYER = "decoder.layers.0."


@pytest.fixture(autouse=True)
def several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sequences in a forward pass, then one: what is added up must not depend on it."""
    monkeypatch.setattr(measure, "TOKENS_AT_ONCE", 50)


@pytest.fixture
def one_layer() -> Iterator[tuple[TrainedModel, LanguageModel, Mesh]]:
    model = trained(num_layers=1)
    with megatron_model(model) as (network, mesh):
        yield model, network, mesh


def dense(model: TrainedModel) -> dict[str, Tensor]:
    """What a GPT-2 model of one layer computes for ROWS, in fp64: [n, s, …] each."""
    weights, heads, size = {name: tensor.double() for name, tensor in model.weights.items()}, 4, 8

    def normed(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{LAYER}{name}.weight"], weights[f"{LAYER}{name}.bias"])

    tokens = torch.from_numpy(ROWS)
    before = weights["embedding.word_embeddings.weight"][tokens] + weights["embedding.position_embeddings.weight"]
    first = normed(before, f"{LAYER}input_layernorm")
    joined = linear(first, "self_attention.linear_qkv").unflatten(-1, (heads, 3, size)).transpose(1, 2)
    query, key, value = joined.unbind(3)
    seen = torch.ones(24, 24, dtype=torch.bool).tril()
    scores = (query @ key.transpose(-1, -2) / size**0.5).masked_fill(~seen, -torch.inf)
    attended = (scores.softmax(-1) @ value).transpose(1, 2)
    middle = before + linear(attended.flatten(2), "self_attention.linear_proj")
    second = normed(middle, f"{LAYER}pre_mlp_layernorm")
    neurons = F.gelu(linear(second, "mlp.linear_fc1"), approximate="tanh")
    after = middle + linear(neurons, "mlp.linear_fc2")
    last = normed(after, "decoder.final_layernorm")
    return {
        "neurons": neurons, "attended": attended, "norms": torch.stack([first, second, last]),
        "before": before, "after": after,
    }  # fmt: skip


def aggregated(sizes: Tensor, over_tokens: Aggregate, over_sequences: Aggregate) -> Tensor:
    """[…, n, s, u] -> […, u]"""
    each = sizes.mean(-2) if over_tokens == "mean" else sizes.norm(dim=-2)
    return each.mean(-2) if over_sequences == "mean" else each.norm(dim=-2)


@pytest.mark.parametrize(("tokens", "sequences"), [("mean", "l2"), ("l2", "mean"), ("mean", "mean")])
def test_importance_is_what_a_dense_model_shows(
    tokens: Aggregate, sequences: Aggregate, one_layer: tuple[TrainedModel, LanguageModel, Mesh]
) -> None:
    model, network, _ = one_layer
    options = ImportanceOptions(tokens, sequences)
    found, expected = measure_importance(network, model.config, ROWS, options), dense(model)
    wanted = {
        "ffn": aggregated(expected["neurons"].abs(), tokens, sequences),
        "heads": aggregated(expected["attended"].norm(dim=-1), tokens, sequences),
        "hidden": aggregated(expected["norms"].abs(), tokens, sequences).sum(0),
        "layers": (1 - F.cosine_similarity(expected["before"], expected["after"], dim=-1)).mean().reshape(1),
    }
    shown = {"ffn": found.ffn[0], "heads": found.heads[0], "hidden": found.hidden, "layers": found.layers}
    for name, values in wanted.items():
        torch.testing.assert_close(shown[name], values, rtol=1e-5, atol=1e-6, msg=lambda text, of=name: f"{of}: {text}")
    assert network.output_layer.last_tokens is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def silent_units() -> TrainedModel:
    """Half of the neurons, a query group, a head of the other group and a layer say nothing."""
    model = trained(**(SECTIONS["llama"] | {"num_attention_heads": 4, "num_layers": 3}))
    for layer in (0, 2):
        name = f"decoder.layers.{layer}"
        model.weights[f"{name}.mlp.linear_fc1.weight"][layer // 2 : 40 : 2] = 0.0
        rows = model.weights[f"{name}.self_attention.linear_qkv.weight"].view(2, 4, 8, -1)
        rows[1 if layer else 0, 3] = 0.0
    for part in ("self_attention.linear_proj", "mlp.linear_fc2"):
        model.weights[f"decoder.layers.1.{part}.weight"].zero_()
    return model


def test_what_says_nothing_is_cut_first() -> None:
    model = silent_units()
    with megatron_model(model) as (network, mesh):
        importance = measure_importance(network, model.config, ROWS, ImportanceOptions())
        kept = chosen_units(model.config, importance, Shape(layers=2, groups=1, ffn=20))
        assert [layer.layer for layer in kept.layers] == [0, 2]
        assert [layer.groups for layer in kept.layers] == [(1,), (0,)]
        assert kept.layers[0].ffn == tuple(range(1, 40, 2))
        child = sliced_model(network, model.config, kept, mesh)
        assert mean_loss(child, ROWS) == pytest.approx(mean_loss(network, ROWS), abs=1e-5)
        worse = chosen_units(model.config, importance, Shape(layers=2, groups=1, ffn=16))
        child = sliced_model(network, model.config, worse, mesh)
        assert abs(mean_loss(child, ROWS) - mean_loss(network, ROWS)) > 1e-3


def test_heads_within_each_group_are_chosen_apart() -> None:
    model = trained(**SECTIONS["llama"])
    with megatron_model(model) as (network, _):
        importance = measure_importance(network, model.config, ROWS, ImportanceOptions())
    kept = chosen_units(model.config, importance, Shape(heads=1))
    for layer, heads in zip(kept.layers, importance.heads, strict=True):
        assert layer.groups == (0, 1)
        assert layer.heads == (int(heads[:2].argmax()), 2 + int(heads[2:].argmax()))


@pytest.mark.parametrize("name", ["gpt2", "mixtral"])
def test_losses_without_a_layer_are_those_of_the_cut_model(name: str) -> None:
    model = trained(**SECTIONS[name])
    with megatron_model(model) as (network, mesh):
        whole, losses = mean_loss(network, ROWS), losses_without(network, ROWS)
        importance = measure_importance(network, model.config, ROWS, ImportanceOptions(layers_by="loss"))
        for number in range(3):
            kept = everything(model.config)
            kept = replace(kept, layers=tuple(layer for layer in kept.layers if layer.layer != number))
            child = sliced_model(network, model.config, kept, mesh)
            assert mean_loss(child, ROWS) == pytest.approx(losses[number].item(), abs=1e-5)
            assert importance.layers[number].item() == pytest.approx(losses[number].item() - whole, abs=1e-6)
        assert losses.std() > 0.01


def test_mean_loss_is_the_cross_entropy(one_layer: tuple[TrainedModel, LanguageModel, Mesh]) -> None:
    _, network, _ = one_layer
    tokens = torch.from_numpy(ROWS)
    with torch.inference_mode():
        logits = network(tokens, torch.arange(24).expand_as(tokens), None)
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert mean_loss(network, ROWS) == pytest.approx(expected.item(), abs=1e-5)


def test_experts_have_no_neurons_to_cut() -> None:
    model = trained(**SECTIONS["mixtral"])
    with megatron_model(model) as (network, _):
        found = measure_importance(network, model.config, ROWS, ImportanceOptions())
    assert [len(one) for one in found.ffn] == [0, 0, 0]
    assert len(found.hidden) == 32


def test_what_is_not_finite_is_refused() -> None:
    model = trained()
    model.weights["decoder.layers.1.mlp.linear_fc1.bias"][3] = float("nan")
    with (
        megatron_model(model) as (network, _),
        pytest.raises(CheckpointError, match="activations of neurons are not finite; take weights from before"),
    ):
        measure_importance(network, model.config, ROWS, ImportanceOptions())
