"""Whether the weights of one model mean the same in another; no torch."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gptdist.checkpoint.identity import FREE_MODEL_KEYS, changes
from gptdist.config.model import ModelConfig

STRETCHED_KEYS = ("seq_length", "rope_base", "rope_scaling", "local_attention_window")
"""Keys that go with the same weights and change what they compute: a model is trained further with longer texts."""

_TRAINING_KEYS = ("aux_loss", "router_z_loss")


def model_differences(was: Mapping[str, Any], now: Mapping[str, Any], where: str) -> dict[str, str]:
    """Return ``model.key: was → now`` for each difference between two model sections that is one of the function.

    Defaults count as the values they stand for; what matters to training alone does not count.

    Args:
        was: a model section, as plain data.
        now: the other.
        where: what to name where one of them is no model section.

    Raises:
        ConfigError: one of them is no model section.
    """
    lines = changes(_function(was, where), _function(now, where), "model.")
    return {line.partition(":")[0].removeprefix("model."): line for line in lines}


def _function(tree: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a model section with every default resolved and without keys that change no function."""
    model = ModelConfig.from_tree(dict(tree), origin=where)
    found = model.tree() | {
        "num_query_groups": model.query_groups,
        "kv_channels": model.head_size,
        "ffn_hidden_size": model.ffn_size,
        "init": "mup" if model.init == "mup" else "without mup",
        "mup_base_head_size": None if model.init != "mup" else model.mup_base_head_size or model.head_size,
    }
    shapes = model.shapes()
    is_uniform = all(shape == model.common_shape for shape in shapes)
    found["layer_shapes"] = None if is_uniform else [asdict(shape) for shape in shapes]
    if model.moe is not None:
        moe = model.moe.tree() | {"ffn_hidden_size": model.expert_size}
        found["moe"] = {key: value for key, value in moe.items() if key not in _TRAINING_KEYS}
        if model.num_expert_layers == model.num_layers:
            del found["ffn_hidden_size"]  # no layer is dense
    if model.position_embedding != "rope":
        del found["rope_base"]
    return {key: value for key, value in found.items() if key not in FREE_MODEL_KEYS}
