"""The exported model is the trained one, and a wrong one is noticed."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from gptdist.compress.hf_model import build_huggingface_model, huggingface_weights
from gptdist.compress.parity import Parity, compare_logits, measure_rounding, require_equal
from gptdist.errors import ExportError
from gptdist.model import hf_names
from tests.unit.compress.small_models import Logits, TrainedModel, llama, trained

TOKENS = torch.randint(0, 260, (2, 24), generator=torch.Generator().manual_seed(3))

MODELS = {
    "gpt2-tied-gelu_tanh": trained,
    "gpt2-untied-gelu": lambda: trained(tie_embeddings=False, activation="gelu"),
    "gpt2-epsilon-ffn": lambda: trained(norm_epsilon=1e-2, ffn_hidden_size=40),
    "llama-gqa-tied": llama,
    "llama-mha-untied": lambda: llama(num_query_groups=None, tie_embeddings=False),
    "llama-mqa-wide-heads": lambda: llama(num_query_groups=1, kv_channels=12),
    "llama-biases-epsilon": lambda: llama(add_bias=True, norm_epsilon=1e-2),
    "neox-partial-untied-gelu": lambda: trained(
        position_embedding="rope", rotary_fraction=0.25, tie_embeddings=False, activation="gelu", rope_base=5e5
    ),
    "neox-scaled-mup": lambda: trained(
        position_embedding="rope",
        rotary_fraction=0.5,
        rope_scaling={"factor": 4.0, "original_seq_length": 16},
        init="mup",
        mup_base_hidden_size=16,
        mup_base_head_size=2,
    ),
    "qwen2-wide-heads": lambda: llama(add_qkv_bias=True, kv_channels=12),
    "mixtral": lambda: llama(moe={"num_experts": 4}, tie_embeddings=False),
    "qwen3-moe": lambda: llama(
        qk_norm=True,
        moe={
            "num_experts": 6,
            "experts_per_token": 3,
            "ffn_hidden_size": 24,
            "normalize_weights": False,
            "every_n_layers": 2,
        },
    ),
}


def parity_of(model: TrainedModel, logits: Logits) -> Parity:
    exported = build_huggingface_model(model.config, model, eod_id=256)
    with torch.inference_mode():
        return compare_logits(logits(model, TOKENS, "float32"), exported(TOKENS).logits)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_transformers_computes_megatrons_function(make: Callable[[], TrainedModel], megatron_logits: Logits) -> None:
    parity = parity_of(make(), megatron_logits)
    require_equal(parity, "test")
    assert parity.max_abs_logit > 1.0, "logits this small would hide a mistake"
    assert parity.argmax_agreement == 1.0


def blocks(config: object, fused: torch.Tensor) -> list[torch.Tensor]:
    """Query, key and value rows read as if they were not interleaved."""
    size = config.query_groups * config.head_size  # type: ignore[attr-defined]
    return list(fused.split([fused.shape[0] - 2 * size, size, size]))


def swapped(split: Callable[..., list[tuple[str, torch.Tensor]]], part: str) -> Callable[..., object]:
    """The tensors of one logical tensor under each other's names."""

    def convert(config: object, name: str, tensor: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
        pairs = split(config, name, tensor)
        if part not in name:
            return pairs
        return [(hf_name, other) for (hf_name, _), (_, other) in zip(pairs, reversed(pairs), strict=True)]

    return convert


def transposed(split: Callable[..., list[tuple[str, torch.Tensor]]], part: str) -> Callable[..., object]:
    """A square matrix the wrong way round."""

    def convert(config: object, name: str, tensor: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
        return [(hf_name, each.T if part in name else each) for hf_name, each in split(config, name, tensor)]

    return convert


def test_unfused_blocks_are_noticed(megatron_logits: Logits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_names, "_split_qkv", blocks)
    for model in (trained(), llama()):
        with pytest.raises(ExportError, match="logits differ from the trained model's by up to"):
            require_equal(parity_of(model, megatron_logits), "test")


@pytest.mark.parametrize(
    ("model", "wrong", "part"),
    [
        (llama(), swapped, "linear_fc1"),
        (llama(), transposed, "linear_proj.weight"),
        (trained(), transposed, "linear_proj.weight"),
        (trained(), transposed, "linear_fc1.weight"),
    ],
    ids=["gate-and-up-swapped", "llama-transposed", "gpt2-transposed", "gpt2-transposed-feed-forward"],
)
def test_wrong_mapping_is_noticed(
    model: TrainedModel,
    wrong: Callable[..., object],
    part: str,
    megatron_logits: Logits,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "linear_fc1" in part and wrong is transposed:  # square, or transformers refuses the shape
        model = trained(ffn_hidden_size=32)
    monkeypatch.setattr("gptdist.compress.hf_model.to_huggingface", wrong(hf_names.to_huggingface, part))
    with pytest.raises(ExportError, match="logits differ from the trained model's by up to"):
        require_equal(parity_of(model, megatron_logits), "test")


WRONG_SETTINGS = {
    "gelu": (trained(activation="gelu"), {"activation_function": "gelu_new"}),
    "layernorm-epsilon": (trained(norm_epsilon=1e-3), {"layer_norm_epsilon": 1e-5}),
    "rmsnorm-epsilon": (llama(norm_epsilon=1e-3), {"rms_norm_eps": 1e-6}),
    "rotary-fraction": (
        trained(position_embedding="rope", rotary_fraction=0.5),
        {"rotary_pct": 0.25, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    ),
    "parallel-residual": (trained(position_embedding="rope"), {"use_parallel_residual": True}),
    "rope-base": (llama(), {"rope_theta": 1e4, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
}


@pytest.mark.parametrize(("model", "setting"), WRONG_SETTINGS.values(), ids=WRONG_SETTINGS)
def test_wrong_setting_is_noticed(
    model: TrainedModel, setting: dict[str, object], megatron_logits: Logits, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gptdist.model.hf_config import huggingface_config

    monkeypatch.setattr(
        "gptdist.compress.hf_model.huggingface_config", lambda *a, **k: huggingface_config(*a, **k) | setting
    )
    with pytest.raises(ExportError, match="logits differ from the trained model's by up to"):
        require_equal(parity_of(model, megatron_logits), "test")


def test_numbers_that_are_not_finite_are_never_equal() -> None:
    logits = torch.ones(1, 2, 3)
    for bad in (math.nan, math.inf):
        broken = logits.clone()
        broken[0, 1, 2] = bad
        for pair in ((logits, broken), (broken, logits), (broken, broken)):
            assert not compare_logits(*pair).is_equal


def test_measured_rounding_is_allowed_up_to_a_limit() -> None:
    parity = Parity(max_abs_difference=3e-3, max_abs_logit=10.0, argmax_agreement=1.0, positions=4)
    assert not parity.is_equal
    assert replace(parity, rounding=1e-3).is_equal
    assert not replace(parity, rounding=1e-4).is_equal
    assert not replace(parity, rounding=math.nan).is_equal
    assert not replace(parity, rounding=1e-1, max_abs_difference=1.1e-2).is_equal


def test_rounding_of_a_right_model_excuses_it_and_not_a_wrong_one(megatron_logits: Logits) -> None:
    """Weights this large make attention so sharp that fp32 alone moves the logits by more than the tolerance."""
    model = trained(hidden_size=256, num_layers=6)
    for weight in model.weights.values():
        weight.mul_(2.0)
    exported = build_huggingface_model(model.config, model, eod_id=256)
    with torch.inference_mode():
        expected, found = megatron_logits(model, TOKENS, "float32"), exported(TOKENS).logits
    parity = compare_logits(expected, found)
    assert not parity.is_equal, "this model no longer needs the second look"
    rounding = measure_rounding(exported, TOKENS, found)
    require_equal(replace(parity, rounding=rounding), "test")
    wrong = compare_logits(expected, found.roll(1, dims=-1))
    assert not replace(wrong, rounding=rounding).is_equal


def test_checkpoint_with_other_tensors_is_refused() -> None:
    model = trained()
    model.weights["decoder.layers.0.extra"] = model.weights.pop("decoder.final_layernorm.bias")
    with pytest.raises(ExportError, match=r"lacks decoder.final_layernorm.bias, holds decoder.layers.0.extra"):
        list(huggingface_weights(model.config, model))


def test_tensor_that_transformers_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "gptdist.compress.hf_model.to_huggingface",
        lambda config, name, tensor: [
            (hf_name.replace("ln_f", "norm"), part) for hf_name, part in hf_names.to_huggingface(config, name, tensor)
        ],
    )
    model = trained()
    with pytest.raises(ExportError, match=r"missing_keys transformer.ln_f.bias, transformer.ln_f.weight"):
        build_huggingface_model(model.config, model, eod_id=256)
