"""A model with layers of different shapes: counts by hand and as built, and a twin made of transformers' layers."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP

from gptdist.config.exportable import export_problems
from gptdist.config.vocabulary import padded_vocab_size
from gptdist.mesh.layout import Layout
from gptdist.model.arithmetic import flops_per_token, num_active_parameters, num_parameters
from gptdist.model.hf_names import logical_shapes
from gptdist.model.parameters import matrices_of
from gptdist.model.rank_weights import RankWeights
from tests.unit.compress.small_models import TrainedModel, llama, megatron_model, trained

SHAPES = (
    {"num_attention_heads": 2, "ffn_hidden_size": 24},
    {"ffn_hidden_size": 0},
    {"num_attention_heads": 0, "ffn_hidden_size": 16},
    {"num_query_groups": 1},
)
PRUNED: dict[str, Any] = {"num_layers": 4, "layer_shapes": SHAPES}
LOGIT_TOLERANCE = 2e-5
"""fp32, sums in another order; logits reach 20."""


NEOX = {"position_embedding": "rope", "rotary_fraction": 0.25}


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize(
    "made",
    [trained, llama, partial(llama, add_qkv_bias=True), partial(trained, **NEOX)],
    ids=["gpt2", "llama", "qwen2", "neox"],
)
def test_as_many_values_as_the_built_model_holds(made: Any, qk_norm: bool) -> None:
    model: TrainedModel = made(**PRUNED, qk_norm=qk_norm)
    shapes = logical_shapes(model.config)
    with megatron_model(model) as (network, _):
        built = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    padded = {name for name in built if name in ("embedding.word_embeddings.weight", "output_layer.weight")}
    assert {name: shapes[name] for name in shapes.keys() - padded} == {n: built[n] for n in built.keys() - padded}
    assert shapes.keys() == built.keys()
    total = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert total == num_parameters(model.config) == num_active_parameters(model.config)
    padding = padded_vocab_size(model.config.vocab_size, 1) - model.config.vocab_size
    planned = RankWeights.of(model.config, Layout(1, 1, 1, 1), 0).num_values
    assert planned == total + padding * model.config.hidden_size


def test_flops_are_those_of_each_layers_matrices_and_heads() -> None:
    """By hand, heads of 8: queries 16, 32, 0, 32; keys 16, 16, 0, 8; widths 24, 0, 16, 40, each three times."""
    h, s, config = 32, 24, llama(**PRUNED, local_attention_window=5).config
    matrices = 2 * h * (16 + 16 + 32 + 16 + 32 + 8) + 3 * h * (24 + 16 + 40) + 260 * h
    near = 5 - 25 / (2 * s)
    expected = 6 * matrices + 12 * (16 * s / 2 + 32 * near + 32 * near)
    assert flops_per_token(config) == pytest.approx(expected, rel=1e-12)


class _Nothing(nn.Module):
    def __init__(self, *, is_attention: bool) -> None:
        super().__init__()
        self.is_attention = is_attention

    def forward(self, hidden_states: Tensor, **_: Any) -> Any:
        zeros = torch.zeros_like(hidden_states)
        return (zeros, None) if self.is_attention else zeros


def _twin(model: TrainedModel) -> LlamaForCausalLM:
    """transformers' model, each layer's parts swapped for some of that layer's sizes; weights taken apart by hand."""
    config = model.config
    fields: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "head_dim": 8,
        "max_position_embeddings": config.seq_length,
        "rms_norm_eps": config.norm_epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "tie_word_embeddings": True,
        "attn_implementation": "sdpa",
    }
    twin = LlamaForCausalLM(LlamaConfig(num_attention_heads=4, **fields)).eval()
    weights = {"model.embed_tokens.weight": model.weights["embedding.word_embeddings.weight"]}
    weights |= {"model.norm.weight": model.weights["decoder.final_layernorm.weight"]}
    for number, (heads, groups, ffn) in enumerate([(2, 2, 24), (4, 2, 0), (0, 0, 16), (4, 1, 40)]):
        layer, there, here = twin.model.layers[number], f"model.layers.{number}.", f"decoder.layers.{number}."
        own = LlamaConfig(
            num_attention_heads=heads or 4, num_key_value_heads=groups or 2, intermediate_size=ffn or 16, **fields
        )
        layer.self_attn = LlamaAttention(own, number) if heads else _Nothing(is_attention=True)
        layer.mlp = LlamaMLP(own) if ffn else _Nothing(is_attention=False)
        if heads:
            rows = model.weights[f"{here}self_attention.linear_qkv.weight"].view(groups, heads // groups + 2, 8, -1)
            for name, part in zip("qkv", (rows[:, :-2], rows[:, -2], rows[:, -1]), strict=True):
                weights[f"{there}self_attn.{name}_proj.weight"] = part.reshape(-1, config.hidden_size)
            weights[f"{there}self_attn.o_proj.weight"] = model.weights[f"{here}self_attention.linear_proj.weight"]
            weights[f"{there}input_layernorm.weight"] = model.weights[f"{here}input_layernorm.weight"]
        if ffn:
            gate, up = model.weights[f"{here}mlp.linear_fc1.weight"].chunk(2)
            weights |= {f"{there}mlp.gate_proj.weight": gate, f"{there}mlp.up_proj.weight": up}
            weights[f"{there}mlp.down_proj.weight"] = model.weights[f"{here}mlp.linear_fc2.weight"]
            weights[f"{there}post_attention_layernorm.weight"] = model.weights[f"{here}pre_mlp_layernorm.weight"]
    absent, extra = twin.load_state_dict(weights, strict=False)
    assert extra == []
    unused = {
        "lm_head.weight",
        "model.layers.1.post_attention_layernorm.weight",
        "model.layers.2.input_layernorm.weight",
    }
    assert set(absent) == unused
    return twin


def test_logits_are_those_of_transformers_layers() -> None:
    model = llama(**PRUNED)
    tokens = torch.randint(0, 260, (2, 24), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        expected = _twin(model)(tokens).logits
        with megatron_model(model) as (network, _):
            found = network(tokens, torch.arange(24).expand_as(tokens), None)
    assert expected.abs().max() > 1
    torch.testing.assert_close(found, expected, rtol=0, atol=LOGIT_TOLERANCE * float(expected.abs().max()))


def test_maps_of_a_layer_are_its_own_groups() -> None:
    config = llama(**PRUNED).config
    shape = logical_shapes(config)["decoder.layers.3.self_attention.linear_qkv.weight"]
    parts = matrices_of(torch.zeros(shape), "decoder.layers.3.self_attention.linear_qkv.weight", config)
    assert [tuple(part.shape) for part in parts] == [(1, 4, 8, 32), (1, 1, 8, 32), (1, 1, 8, 32)]


def test_export_names_what_no_class_has() -> None:
    (problem,) = export_problems(llama(**PRUNED).config)
    assert problem == (
        "model.layer_shapes: another shape in 4 of 4 layers has no counterpart in LlamaForCausalLM, the nearest "
        "Hugging Face class; use null, which gives all layers the model's shape"
    )
    assert export_problems(llama(layer_shapes=({"layers": 2, "ffn_hidden_size": 40},)).config) == []
