"""A megatron-core layer with a shape of its own."""

from dataclasses import replace
from typing import Any

from megatron.core.transformer.identity_op import IdentityFuncOp, IdentityOp
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer

from gptdist.config.layer_shapes import LayerShape


class ShapedLayer(TransformerLayer):
    """megatron-core's layer, built from a config of its own: a block gives all its layers the same."""

    def __init__(self, config: TransformerConfig, *arguments: Any, shape: LayerShape, **named: Any) -> None:
        """Take megatron-core's arguments, and the shape; a part that it lacks must be left out of the submodules."""
        own = {
            "num_attention_heads": shape.heads or config.num_attention_heads,
            "num_query_groups": shape.groups or config.num_query_groups,
            "ffn_hidden_size": shape.ffn or config.ffn_hidden_size,
        }
        super().__init__(replace(config, **own), *arguments, **named)


def shaped(spec: ModuleSpec, shape: LayerShape) -> ModuleSpec:
    """Return ``spec`` of a layer with this shape; what is left out passes the residual stream on."""
    spec.module, spec.params = ShapedLayer, {"shape": shape}
    parts = spec.submodules
    if not shape.heads:
        parts.input_layernorm = parts.self_attention = IdentityOp
        parts.self_attn_bda = IdentityFuncOp
    if not shape.ffn:
        parts.pre_mlp_layernorm = parts.mlp = IdentityOp
        parts.mlp_bda = IdentityFuncOp
    return spec
