"""GPT-2's function in OPT's layout, whose matrices are linear layers.

transformers keeps GPT-2's matrices in a class of their own (``Conv1D``, transposed), which no quantizer knows; they
would pass it over in silence. OPT computes the same: learned positions, layer norm before each part and at the end,
biases everywhere. Its position table has two rows in front that are never read.
"""

from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch import Tensor

from gptdist.compress.hf_model import quiet_transformers
from gptdist.compress.parity import compare_logits, require_equal
from gptdist.errors import ExportError

_UNREAD_POSITIONS = 2
_CHECKED_TOKENS = 64


def as_linear_model(model: Any, where: str) -> Any:
    """Return ``model`` if its matrices are linear layers, else the same function in a layout where they are.

    Raises:
        ExportError: there is no such layout, or it computes another function.
    """
    if model.config.model_type != "gpt2":
        return model
    config = model.config
    _require_plain(config, where)
    with quiet_transformers():
        twin = transformers.OPTForCausalLM(
            transformers.OPTConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.n_embd,
                word_embed_proj_dim=config.n_embd,
                num_hidden_layers=config.n_layer,
                num_attention_heads=config.n_head,
                ffn_dim=config.n_inner or 4 * config.n_embd,
                max_position_embeddings=config.n_positions,
                activation_function=config.activation_function,
                do_layer_norm_before=True,
                enable_bias=True,
                dropout=0.0,
                attention_dropout=0.0,
                layerdrop=0.0,
                tie_word_embeddings=config.tie_word_embeddings,
                bos_token_id=config.bos_token_id,
                eos_token_id=config.eos_token_id,
                pad_token_id=config.eos_token_id,
            )
        )
    state = dict(_renamed(model.state_dict(), config.n_layer))
    if not config.tie_word_embeddings:
        state["lm_head.weight"] = model.state_dict()["lm_head.weight"]
    missing, unexpected = twin.load_state_dict(state, strict=False)
    assert not unexpected, f"OPT has no place for {unexpected}"
    assert set(missing) <= {"lm_head.weight"}, f"OPT lacks {missing}"
    twin.eval()
    _compare(model, twin, where)
    return twin


def _require_plain(config: Any, where: str) -> None:
    """Refuse switches of GPT-2 that OPT has not."""
    switched = [
        name
        for name, plain in (
            ("scale_attn_weights", True),
            ("scale_attn_by_inverse_layer_idx", False),
            ("layer_norm_epsilon", 1e-5),
        )
        if getattr(config, name) != plain
    ]
    if switched:
        raise ExportError(
            f"{where}: {switched[0]} is {getattr(config, switched[0])}, for which GPT-2 has no layout with linear "
            f"layers; quantize another model"
        )


def _renamed(state: dict[str, Tensor], layers: int) -> Iterator[tuple[str, Tensor]]:
    """Yield OPT's tensors."""
    base, ours = "transformer.", "model.decoder."
    yield ours + "embed_tokens.weight", state[base + "wte.weight"]
    positions = state[base + "wpe.weight"]
    unread = torch.zeros(_UNREAD_POSITIONS, positions.shape[1])
    yield ours + "embed_positions.weight", torch.cat([unread, positions])
    for part in ("weight", "bias"):
        yield f"{ours}final_layer_norm.{part}", state[f"{base}ln_f.{part}"]
        for layer in range(layers):
            old, new = f"{base}h.{layer}.", f"{ours}layers.{layer}."
            yield f"{new}self_attn_layer_norm.{part}", state[f"{old}ln_1.{part}"]
            yield f"{new}final_layer_norm.{part}", state[f"{old}ln_2.{part}"]
            for name, piece in zip("qkv", state[f"{old}attn.c_attn.{part}"].t().chunk(3), strict=True):
                yield f"{new}self_attn.{name}_proj.{part}", piece
            for theirs, name in (("attn.c_proj", "self_attn.out_proj"), ("mlp.c_fc", "fc1"), ("mlp.c_proj", "fc2")):
                yield f"{new}{name}.{part}", state[f"{old}{theirs}.{part}"].t()


def _compare(model: Any, twin: Any, where: str) -> None:
    generator = torch.Generator().manual_seed(0)
    length = min(_CHECKED_TOKENS, int(model.config.n_positions))
    tokens = torch.randint(0, model.config.vocab_size, (2, length), generator=generator)
    with torch.inference_mode():
        require_equal(compare_logits(model(tokens).logits, twin(tokens).logits), where)
