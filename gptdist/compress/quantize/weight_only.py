"""Weights of linear layers in int8 or int4 by torchao; what is computed stays fp32.

int8 is written as torchao's own tensors. torchao holds int4 one a byte on CPUs, so those are packed, eight in an int32,
in the layout of compressed-tensors: transformers and vLLM load it. Both are safetensors.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gptdist.compress.hf_model import quiet_transformers
from gptdist.compress.quantize.options import QuantizeOptions
from gptdist.compress.safetensors_export import SINGLE_FILE
from gptdist.errors import ExportError

_INT4: Any = torch.int4  # type: ignore[attr-defined]  # torch's stubs lack it


def linear_layers(model: Any) -> dict[str, nn.Linear]:
    """Return the layers that are quantized, by name: all linear ones but the output layer."""
    output = model.get_output_embeddings()
    return {
        name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and layer is not output
    }


def require_quantizable(model: Any, options: QuantizeOptions, where: str) -> None:
    """Refuse a model with numbers that are not finite, or with matrices that would be passed over.

    Raises:
        ExportError: it names the first of them.
    """
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise ExportError(f"{where}: '{name}' holds numbers that are not finite; quantize an earlier checkpoint")
    layers = linear_layers(model)
    known = {id(layer.weight) for layer in layers.values()}
    known |= {id(part.weight) for part in (model.get_input_embeddings(), model.get_output_embeddings())}
    others = [
        name
        for name, weight in model.named_parameters()
        if weight.dim() >= 2 and id(weight) not in known and "embed" not in name and "wpe" not in name
    ]
    if others or not layers:
        raise ExportError(
            f"{where}: {len(others)} matrices, such as '{(others or ['none'])[0]}', are no linear layers and would "
            f"stay as they are; quantize a model without experts"
        )
    if options.scheme == "int4":
        _require_whole_groups(layers, options.weights_a_scale, where)


def _require_whole_groups(layers: dict[str, nn.Linear], group_size: int, where: str) -> None:
    odd = {name: layer.in_features for name, layer in layers.items() if layer.in_features % group_size}
    if odd:
        name, width = next(iter(odd.items()))
        raise ExportError(
            f"{where}: {len(odd)} layers, such as '{name}', have {width} inputs, which groups of {group_size} do not "
            f"divide; take a smaller --group-size if there is one, or --scheme int8"
        )


def write_int8(source: Path, target: Path) -> None:
    """Write the model of the folder ``source`` with a scale a row, for ``from_pretrained`` with torchao installed."""
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import AutoModelForCausalLM, TorchAoConfig

    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=torch.float32,
            local_files_only=True,
            quantization_config=TorchAoConfig(quant_type=Int8WeightOnlyConfig(version=2)),
        )
        model.save_pretrained(target)


def write_int4(model: Any, target: Path, group_size: int) -> None:
    """Write ``model`` with a scale a group of weights, for ``from_pretrained`` with compressed-tensors installed.

    The model's linear layers are quantized where they are.
    """
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    tensors: dict[str, Tensor] = {}
    for name, layer in linear_layers(model).items():
        integers, scales = int4_weights(layer, group_size)
        tensors[f"{name}.weight_packed"] = pack_to_int32(integers, 4)
        tensors[f"{name}.weight_scale"] = scales
        tensors[f"{name}.weight_shape"] = torch.tensor(integers.shape)
    quantized = {name.removesuffix("_packed") for name in tensors if name.endswith("_packed")}
    for name, weight in model.named_parameters():  # tied ones once
        if name not in quantized:
            tensors[name] = weight.detach().contiguous()
    save_file(tensors, target / SINGLE_FILE, metadata={"format": "pt"})
    config = model.config.to_dict() | {"quantization_config": _packed_config(group_size, _output_name(model))}
    (target / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n", encoding="utf-8")


def int4_weights(layer: nn.Linear, group_size: int) -> tuple[Tensor, Tensor]:
    """Quantize ``layer``; return its integers, -8 … 7 as int8 [out, in], and its scales, fp32 [out, in / group]."""
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    quantize_(layer, IntxWeightOnlyConfig(weight_dtype=_INT4, granularity=PerGroup(group_size)))
    weight: Any = layer.weight
    assert not bool(weight.zero_point.any()), "symmetric quantization has no zero point"
    return weight.qdata, weight.scale.float().contiguous()


def _output_name(model: Any) -> str:
    output = model.get_output_embeddings()
    return next(name for name, layer in model.named_modules() if layer is output)


def _packed_config(group_size: int, output_name: str) -> dict[str, Any]:
    """What transformers reads of compressed-tensors' layout."""
    weights = {
        "num_bits": 4,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": group_size,
        "dynamic": False,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": [output_name],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": weights,
                "input_activations": None,
                "output_activations": None,
            }
        },
    }
