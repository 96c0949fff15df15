"""Parameter counts against published ones and against the model that is built."""

import pytest

from gptdist.config.model import ModelConfig
from gptdist.model.arithmetic import flops_per_token, num_parameters, padded_vocab_size

GPT2_124M = ModelConfig(num_layers=12, hidden_size=768, num_attention_heads=12, seq_length=1024, vocab_size=50257)
LLAMA_3_8B = ModelConfig(
    num_layers=32,
    hidden_size=4096,
    num_attention_heads=32,
    num_query_groups=8,
    ffn_hidden_size=14336,
    seq_length=8192,
    vocab_size=128256,
    position_embedding="rope",
    normalization="rmsnorm",
    activation="swiglu",
    add_bias=False,
    tie_embeddings=False,
)


@pytest.mark.parametrize(("model", "published"), [(GPT2_124M, 124_439_808), (LLAMA_3_8B, 8_030_261_248)])
def test_parameters_are_those_of_the_published_models(model: ModelConfig, published: int) -> None:
    """Counts of GPT2LMHeadModel("gpt2") and of Meta-Llama-3-8B, as their weight files have them."""
    assert num_parameters(model) == published


def test_flops_are_six_times_the_matrices_and_attention() -> None:
    """GPT-2 124M: 6 x (12 x 12 h^2 + v h) + 6 L s h."""
    h, layers = 768, 12
    expected = 6 * (layers * 12 * h * h + 50257 * h) + 6 * layers * 1024 * h
    assert flops_per_token(GPT2_124M) == expected


def test_padding_is_a_multiple_for_each_rank() -> None:
    assert [padded_vocab_size(50257, t) for t in (1, 2, 8)] == [50304, 50432, 51200]
    assert padded_vocab_size(1024, 2) == 1024


def test_defaults_of_widths() -> None:
    assert GPT2_124M.ffn_size == 4 * 768
    assert GPT2_124M.head_size == 64
    gated = GPT2_124M.model_copy(update={"activation": "swiglu"})
    assert gated.ffn_size == 2048
