"""Parameter counts against published ones and against the model that is built."""

from pathlib import Path
from typing import Any

import pytest

from gptdist.config.model import ModelConfig
from gptdist.config.run import RunConfig
from gptdist.config.source import read_tree
from gptdist.config.vocabulary import padded_vocab_size
from gptdist.model.arithmetic import flops_per_token, num_active_parameters, num_parameters

GPT2_124M = ModelConfig(num_layers=12, hidden_size=768, num_attention_heads=12, seq_length=1024, vocab_size=50257)
PRESETS = Path(__file__).parents[3] / "configs" / "models"
PUBLISHED = {
    "gpt2-124m": 124_439_808,
    "gpt2-355m": 354_823_168,
    "gpt2-774m": 774_030_080,
    "gpt2-1.5b": 1_557_611_200,
    "llama2-7b": 6_738_415_616,
    "llama2-70b": 68_976_648_192,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3.1-8b": 8_030_261_248,
    "llama3.1-70b": 70_553_706_496,
    "qwen2.5-7b": 7_615_616_512,
    "mixtral-8x7b": 46_702_792_704,
    "qwen3-30b-a3b": 30_532_122_624,
}
"""As the weight files have them."""

ROUNDED = {
    "gpt3-125m": (125e6, 0.5e6),
    "gpt3-350m": (350e6, 0.5e6),
    "gpt3-760m": (760e6, 0.5e6),
    "gpt3-1.3b": (1.3e9, 1e6),
    "gpt3-2.7b": (2.7e9, 1e6),
    "gpt3-6.7b": (6.7e9, 2e6),
    "gpt3-13b": (13e9, 2e6),
    "gpt3-175b": (175e9, 3.2e6),
}
"""Parameters and tokens a batch, as Brown et al. 2020 print them in table 2.1."""


def preset(name: str) -> dict[str, Any]:
    return read_tree(PRESETS / f"{name}.yaml")


def test_every_preset_is_checked_here() -> None:
    shipped = {path.stem for path in PRESETS.glob("*.yaml")}
    assert shipped == {*PUBLISHED, *ROUNDED, "gpt2-1m", "llama-1m"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_published_models(name: str) -> None:
    model = ModelConfig.from_tree(preset(name)["model"])
    assert model.problems() == []
    assert num_parameters(model) == PUBLISHED[name]
    assert f"{num_parameters(model):,}" in (PRESETS / f"{name}.yaml").read_text() or "3.1" in name


@pytest.mark.parametrize("name", ROUNDED)
def test_gpt3_is_what_its_paper_prints(name: str) -> None:
    tree, (parameters, batch_tokens) = preset(name), ROUNDED[name]
    data = {"tokenizer": "t", "sources": [{"path": "s"}]}
    config = RunConfig.from_tree({"name": name, "data": data, **tree})
    assert [problem for problem in config.problems() if not problem.startswith("data.")] == []
    assert num_parameters(config.model) == pytest.approx(parameters, rel=0.025)
    step_tokens = config.batch.global_batch_size * config.model.seq_length
    assert step_tokens == pytest.approx(batch_tokens, rel=0.05)
    assert step_tokens * config.training.train_steps == pytest.approx(300e9, rel=1e-4)


def test_flops_are_six_times_the_matrices_and_attention() -> None:
    """GPT-2 124M: 6 x (12 x 12 h^2 + v h) + 6 L s h."""
    h, layers = 768, 12
    expected = 6 * (layers * 12 * h * h + 50257 * h) + 6 * layers * 1024 * h
    assert flops_per_token(GPT2_124M) == expected


def test_layers_with_a_window_attend_to_fewer() -> None:
    """Counted token by token: two of four layers see the last 100 of 1,024 tokens at most."""
    windowed = GPT2_124M.model_copy(update={"num_layers": 4, "local_attention_window": 100})
    seen = sum(min(place, 100) for place in range(1, 1025)) / 1024
    whole = GPT2_124M.model_copy(update={"num_layers": 4})
    spared = 2 * 12 * 768 * (1024 / 2 - seen)
    assert flops_per_token(whole) - flops_per_token(windowed) == pytest.approx(spared, rel=2e-3)


def test_norms_of_queries_and_keys_are_counted() -> None:
    assert num_parameters(GPT2_124M.model_copy(update={"qk_norm": True})) == num_parameters(GPT2_124M) + 12 * 2 * 2 * 64


@pytest.mark.parametrize(("name", "active"), [("mixtral-8x7b", 12.9e9), ("qwen3-30b-a3b", 3.3e9)])
def test_a_token_meets_as_many_parameters_as_published(name: str, active: float) -> None:
    model = ModelConfig.from_tree(preset(name)["model"])
    assert num_active_parameters(model) == pytest.approx(active, rel=0.02)
    assert f"{num_active_parameters(model):,}" in (PRESETS / f"{name}.yaml").read_text()


def test_experts_cost_what_a_token_takes_of_them() -> None:
    """Mixtral, by hand: attention, router, two of eight experts, output projection, scores and values."""
    model = ModelConfig.from_tree(preset("mixtral-8x7b")["model"])
    attention, router, expert = 4096 * (4096 + 2 * 1024) + 4096 * 4096, 4096 * 8, 3 * 4096 * 14336
    matrices = 32 * (attention + router + 2 * expert) + 32000 * 4096
    assert flops_per_token(model) == 6 * matrices + 12 * 4096 * 32 * model.seq_length / 2


def test_a_dense_model_is_met_whole() -> None:
    assert num_active_parameters(GPT2_124M) == num_parameters(GPT2_124M)


def test_padding_is_a_multiple_for_each_rank() -> None:
    assert [padded_vocab_size(50257, t) for t in (1, 2, 8)] == [50304, 50432, 51200]
    assert padded_vocab_size(1024, 2) == 1024


def test_defaults_of_widths() -> None:
    assert GPT2_124M.ffn_size == 4 * 768
    assert GPT2_124M.head_size == 64
    gated = GPT2_124M.model_copy(update={"activation": "swiglu"})
    assert gated.ffn_size == 2048
