"""Core attention against the formula, written out."""

import math
from types import SimpleNamespace

import pytest
import torch
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule

from gptdist.config.model import RopeScaling
from gptdist.model.attention import CausalAttention
from gptdist.model.gpt import scaled_frequencies

S, B, N, G, D = 12, 2, 4, 2, 8


def attend(layer: int, window: int | None, multiplier: float, *tensors: torch.Tensor) -> torch.Tensor:
    layer_config = SimpleNamespace(attention_dropout=0.0)
    attention = CausalAttention.__new__(CausalAttention)
    MegatronModule.__init__(attention, layer_config)
    CausalAttention.__init__(attention, layer_config, layer, AttnMaskType.causal, "self", window, multiplier)
    return attention(*tensors)


@pytest.mark.parametrize(("layer", "window"), [(1, None), (1, 3), (2, None), (2, 3), (4, 1), (2, 100)])
@pytest.mark.parametrize("multiplier", [1.0, 0.5])
def test_every_second_layer_sees_its_window(layer: int, window: int | None, multiplier: float) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(S, B, N, D), torch.randn(S, B, G, D), torch.randn(S, B, G, D)
    found = attend(layer, window, multiplier, query, key, value).reshape(S, B, N, D)
    reach = window if window is not None and layer % 2 == 0 else S
    for b in range(B):
        for n in range(N):
            k, v = key[:, b, n // (N // G)], value[:, b, n // (N // G)]
            for i in range(S):
                seen = slice(max(0, i - reach + 1), i + 1)
                weights = (multiplier * (k[seen] @ query[i, b, n]) / math.sqrt(D)).softmax(0)
                torch.testing.assert_close(found[i, b, n], weights @ v[seen], rtol=0, atol=1e-5)


def test_long_waves_are_stretched_and_short_ones_stay() -> None:
    """Wavelengths of 1 to 4 times the original length / 4 are blended, as the published configs have it."""
    scaling = RopeScaling(factor=8.0, original_seq_length=1000)
    lengths = torch.tensor([10.0, 249.0, 400.0, 1001.0, 10_000.0])
    frequencies = 2 * math.pi / lengths
    ratio = (scaled_frequencies(frequencies, scaling) / frequencies).tolist()
    blend = (1000 / 400 - 1) / 3
    assert ratio == pytest.approx([1.0, 1.0, blend + (1 - blend) / 8, 1 / 8, 1 / 8], rel=1e-5)
