"""What a model's layers see of calibration tokens, for methods that prune or quantise by it.

``activations.safetensors``, all fp32, over all tokens of ``calibration.safetensors``:

- ``mean_abs/MODULE`` and ``l2/MODULE`` [inputs]: mean of |x| and root of the sum of x^2 of each input channel of a
  linear layer, under the module's name in transformers (Wanda's and SmoothQuant's statistics);
- ``heads/LAYER`` [n]: mean of the norm of each head's output; ``ffn/LAYER`` [f]: mean of |x| behind the activation;
  ``hidden`` [h]: mean of |x| of the norms' outputs, summed over all norms of layers (Minitron's importance);
- ``block_influence`` [layers]: 1 - cosine of what goes into a layer and what comes out, mean over tokens (ShortGPT).

Experts have no ``ffn``: transformers keeps them in one tensor, of no linear layer.

Source: Sun et al. 2023 (Wanda), section 3; Muralidharan et al. 2024 (Minitron), section 2.2; Men et al. 2024
(ShortGPT), section 2.3.

Letters: b batch, s sequence, h hidden, n heads, d head size, f feed-forward width.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from safetensors.torch import save
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

ACTIVATIONS_FILE = "activations.safetensors"
_TOKENS_AT_ONCE = 4096
_HEADS = ("attn.c_proj", "attention.dense", "self_attn.o_proj")
_FFN = ("mlp.c_proj", "mlp.dense_4h_to_h", "mlp.down_proj")
_NORMS = ("ln_1", "ln_2", "input_layernorm", "post_attention_layernorm")


def activation_statistics(model: Any, ids: np.ndarray) -> dict[str, Tensor]:
    """Return the statistics by name, of a transformers model on token ids [n, s]."""
    seen = _Seen(int(ids.size))
    heads = int(model.config.num_attention_heads)
    handles = [handle for name, module in model.named_modules() for handle in seen.watch(name, module, heads)]
    handles += [
        layer.register_forward_hook(partial(seen.influence, index), with_kwargs=True)
        for index, layer in enumerate(_layers(model))
    ]
    tokens = torch.from_numpy(ids.astype(np.int64)).to(model.device)
    try:
        with torch.inference_mode():
            for rows in tokens.split(max(1, _TOKENS_AT_ONCE // tokens.shape[1])):
                model.base_model(rows, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return seen.statistics()


def activations_bytes(statistics: dict[str, Tensor]) -> bytes:
    """Return the content of ``activations.safetensors``."""
    return save({name: tensor.float().contiguous() for name, tensor in sorted(statistics.items())})


def _layers(model: Any) -> list[nn.Module]:
    """The layers of a model of any of our classes, from the first on."""
    base = model.base_model
    return list(base.h if hasattr(base, "h") else base.layers)


def _layer_number(name: str) -> int | None:
    numbers = [int(part) for part in name.split(".") if part.isdecimal()]
    return numbers[0] if numbers else None


class _Seen:
    """Sums over tokens, in fp64."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._sums: dict[str, Tensor] = {}
        self._roots: set[str] = set()
        """Names of which the root is what counts, and not the mean."""

    def watch(self, name: str, module: nn.Module, heads: int) -> list[Any]:
        """Have what goes through ``module`` added up; return what to remove at the end."""
        number = _layer_number(name)
        found: list[Callable[..., None]] = []
        if isinstance(module, (nn.Linear, Conv1D)) and number is not None:
            found.append(partial(self._linear, name))
            if name.endswith(_HEADS):
                found.append(partial(self._heads, number, heads))
            if name.endswith(_FFN):
                found.append(partial(self._absolute, f"ffn/{number}"))
        handles = [module.register_forward_pre_hook(lambda _, args, see=see: see(args[0])) for see in found]
        if name.endswith(_NORMS) and number is not None:
            handles.append(module.register_forward_hook(lambda _, __, out: self._absolute("hidden", out)))
        return handles

    def influence(self, layer: int, _: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        """Add up how much ``layer`` changes what passes through it."""
        before = args[0] if args else kwargs["hidden_states"]
        after = out if isinstance(out, Tensor) else out[0]
        self._add(f"block_influence/{layer}", (1.0 - F.cosine_similarity(before, after, dim=-1)).sum().double())

    def statistics(self) -> dict[str, Tensor]:
        """Return means and roots."""
        found = {
            name: total.sqrt() if name in self._roots else total / self._tokens for name, total in self._sums.items()
        }
        layers = sorted((name for name in found if name.startswith("block_influence/")), key=lambda n: int(n[16:]))
        return {name: tensor for name, tensor in found.items() if name not in layers} | {
            "block_influence": torch.stack([found[name] for name in layers])
        }

    def _linear(self, name: str, x: Tensor) -> None:
        self._absolute(f"mean_abs/{name}", x)
        self._roots.add(f"l2/{name}")
        self._add(f"l2/{name}", x.double().square().flatten(0, -2).sum(0))

    def _heads(self, layer: int, heads: int, x: Tensor) -> None:
        self._add(f"heads/{layer}", x.unflatten(-1, (heads, -1)).double().norm(dim=-1).flatten(0, -2).sum(0))

    def _absolute(self, name: str, x: Tensor) -> None:
        self._add(name, x.double().abs().flatten(0, -2).sum(0))

    def _add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums[name] + value if name in self._sums else value
