"""Each parameter of a rank as a slice of a logical tensor that knows no layout, and its initial values.

A logical tensor is [outer, length, inner]; the tensor-parallel axis cuts ``length``. A gated layer's matrix holds gate
and up-projection one after the other, and each is cut: it is [2, f, h] here. Experts are stacked, and each stays whole:
[1, experts, 2 x f x h]. Vocabulary padding is no part of it.
"""

import contextlib
import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gptdist.config.model import ModelConfig

LORA_A, LORA_B = "lora_a", "lora_b"
"""Last parts of the names of an adapter's factors, which stand beside the weight that they are added to."""

VOCABULARY_TENSORS = ("embedding.word_embeddings.weight", "output_layer.weight")
SPLIT_DIMS = {
    "embedding.word_embeddings.weight": 0,
    "output_layer.weight": 0,
    "self_attention.linear_qkv.weight": 0,
    "self_attention.linear_qkv.bias": 0,
    "self_attention.linear_proj.weight": 1,
    "mlp.linear_fc1.weight": 0,
    "mlp.linear_fc1.bias": 0,
    "mlp.linear_fc2.weight": 1,
    f"self_attention.linear_qkv.{LORA_B}": 0,
    f"self_attention.linear_proj.{LORA_A}": 1,
    f"mlp.linear_fc1.{LORA_B}": 0,
    f"mlp.linear_fc2.{LORA_A}": 1,
    "mlp.experts.linear_fc1.weight": 0,
    "mlp.experts.linear_fc2.weight": 0,
}
"""Which dimension tensor parallelism cuts, by the last parts of the name; what is not here is whole on every rank."""

RESIDUAL_WRITERS = ("self_attention.linear_proj.weight", "mlp.linear_fc2.weight", "mlp.experts.linear_fc2.weight")
"""Matrices whose output is added to the residual stream."""


@dataclass(frozen=True)
class LogicalTensor:
    """One tensor of the model, whole, and how tensor parallelism cuts it."""

    name: str
    shape: tuple[int, ...]
    """As other tools see it, without padding."""

    outer: int
    length: int
    inner: int
    is_split: bool
    """Whether tensor parallelism cuts ``length``; otherwise every rank holds the whole tensor."""

    def box(self) -> tuple[int, int, int]:
        """Return the shape as [outer, length, inner]."""
        return self.outer, self.length, self.inner


@dataclass(frozen=True)
class LocalParameter:
    """A rank's parameter, and the slice of the logical tensor that it holds."""

    parameter: nn.Parameter
    logical: LogicalTensor
    start: int
    """First index of the slice along ``length``."""

    local_length: int
    """Indices of the slice, padding included."""

    num_slices: int = 1
    """Into so many the logical tensor is cut."""

    @property
    def slice_index(self) -> int:
        """Number of this slice among those of the logical tensor."""
        return self.start // self.local_length

    @property
    def valid_length(self) -> int:
        """Indices of the slice that are not padding."""
        return max(0, min(self.local_length, self.logical.length - self.start))

    @property
    def numel(self) -> int:
        """Values of the slice, padding included."""
        return self.logical.outer * self.local_length * self.logical.inner


def logical_shape_of(parameter: nn.Parameter) -> tuple[int, ...]:
    """Return a parameter's own shape; under ZeRO-3 the tensor itself is empty and DeepSpeed remembers it."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def local_parameters(
    model: nn.Module,
    config: ModelConfig,
    tensor_parallel_size: int,
    tp_rank: int,
    *,
    expert_part: tuple[int, int] = (0, 1),
) -> Iterator[LocalParameter]:
    """Yield every parameter of ``model`` with its place in the logical tensor.

    Args:
        model: this rank's part.
        config: the whole model.
        tensor_parallel_size: ranks that share each matrix.
        tp_rank: place among those.
        expert_part: which part of a tensor-parallel rank's experts the rank holds, of how many.
    """
    for local_name, parameter in model.named_parameters():
        name = _whole_models_name(local_name, getattr(model, "first_layer", 0))
        shape = logical_shape_of(parameter)
        split = split_dim(name)
        dim, parts = split or 0, _parts(name, config)
        local_length = shape[dim] // parts
        index, slices = (0, 1) if split is None else (tp_rank, tensor_parallel_size)
        if is_expert(name):
            index, slices = index * expert_part[1] + expert_part[0], slices * expert_part[1]
        length = config.vocab_size if name in VOCABULARY_TENSORS else local_length * slices
        logical = logical_tensor(name, (*shape[:dim], parts * length, *shape[dim + 1 :]), config)
        yield LocalParameter(parameter, logical, local_length * index, local_length, slices)


def logical_tensor(name: str, shape: tuple[int, ...], config: ModelConfig) -> LogicalTensor:
    """Return the logical tensor ``name`` of the whole model, whose shape without padding is ``shape``."""
    split, parts = split_dim(name), _parts(name, config)
    dim = split or 0
    outer = parts if dim == 0 else math.prod(shape[:dim])
    return LogicalTensor(name, shape, outer, shape[dim] // parts, math.prod(shape[dim + 1 :]), split is not None)


def _parts(name: str, config: ModelConfig) -> int:
    """Return how many matrices stand one above the other in a parameter, each of which is cut."""
    has_rows_of_both = ".mlp.linear_fc1." in name and not name.endswith(f".{LORA_A}")
    return 2 if config.is_gated and has_rows_of_both else 1


def is_adapter(name: str) -> bool:
    """Whether parameter ``name`` is a factor of a low-rank adapter."""
    return name.endswith((f".{LORA_A}", f".{LORA_B}"))


def is_expert(name: str) -> bool:
    """Whether parameter ``name`` is the matrices of experts."""
    return ".mlp.experts." in name


def _whole_models_name(name: str, first_layer: int) -> str:
    """Return the name that a stage's parameter has in the whole model, where its layers begin at ``first_layer``."""
    return re.sub(r"^decoder\.layers\.(\d+)\.", lambda found: f"decoder.layers.{int(found[1]) + first_layer}.", name)


def layer_of(name: str) -> int:
    """Return which layer of the whole model parameter ``name`` belongs to, from 0."""
    found = re.match(r"decoder\.layers\.(\d+)\.", name)
    assert found is not None, f"{name} belongs to no layer"
    return int(found[1])


def split_dim(name: str) -> int | None:
    """Return the dimension of parameter ``name`` that tensor parallelism cuts, or None."""
    return next((dim for suffix, dim in SPLIT_DIMS.items() if name.endswith(suffix)), None)


def initial_values(logical: LogicalTensor, config: ModelConfig, seed: int) -> Tensor:
    """Return the initial logical tensor in fp32, [outer, length, inner]; depends on seed and name alone.

    Biases are 0, norms 1, everything else is normal with the standard deviation of ``initial_std``. An adapter's B is
    0, so that it changes nothing at first, and its A keeps the size of what it is applied to: 1 / sqrt(columns).
    """
    box = logical.box()
    if logical.name.endswith(("bias", f".{LORA_B}")):
        return torch.zeros(box)
    if "layernorm" in logical.name:
        return torch.ones(box)
    std = logical.shape[-1] ** -0.5 if is_adapter(logical.name) else initial_std(logical.name, config)
    generator = torch.Generator().manual_seed(derived_seed(seed, "initial_values", logical.name))
    return torch.empty(box).normal_(0.0, std, generator=generator)


def initial_std(name: str, config: ModelConfig) -> float:
    """Return the standard deviation of a weight's initial values.

    Source: gpt2: Radford et al. 2019, section 2.3; small: Nguyen and Salazar 2019, "Transformers without Tears", and
    for writers of the residual stream Wang and Komatsuzaki 2021 (GPT-J's code); mup: Yang et al. 2022, "Tensor
    Programs V", arXiv 2203.03466, table 8.
    """
    is_writer, width = name.endswith(RESIDUAL_WRITERS), config.hidden_size
    if config.init == "small":
        return 2 / (config.num_layers * math.sqrt(width)) if is_writer else math.sqrt(2 / (5 * width))
    std = config.init_std / (math.sqrt(2 * config.num_layers) if is_writer else 1.0)
    return std / math.sqrt(config.width_multiplier) if is_hidden_matrix(name) else std


def is_hidden_matrix(name: str) -> bool:
    """Whether a parameter maps hidden widths to hidden widths, both of which grow with the model."""
    return ".linear_" in name and name.endswith(".weight")


def matrices_of(whole: Tensor, name: str, config: ModelConfig) -> list[Tensor]:
    """Return views of the maps that a hidden matrix is made of: queries, keys and values; gate and up-projection.

    Shapes: ``whole`` [rows, columns], of experts [experts, rows, columns]; views the same with fewer rows, but queries,
    keys and values [groups, heads of a group, head size, columns].
    """
    if name.endswith("self_attention.linear_qkv.weight"):
        groups = config.shapes()[layer_of(name)].groups
        grouped = whole.view(groups, -1, config.head_size, whole.shape[-1])
        return list(grouped.split([grouped.shape[1] - 2, 1, 1], dim=1))
    if config.is_gated and name.endswith(".linear_fc1.weight"):
        return list(whole.chunk(2, dim=-2))
    return [whole]


def lr_scale(name: str, config: ModelConfig) -> float:
    """Return what the learning rate of a parameter is multiplied by: 1 / width multiplier for muP's hidden matrices.

    Source: Yang et al. 2022, table 8, the column for Adam.
    """
    return 1.0 / config.width_multiplier if is_hidden_matrix(name) else 1.0


def derived_seed(seed: int, *purpose: str | int) -> int:
    """Return 63 bits that depend on ``seed`` and ``purpose`` and on nothing else."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def local_slice(whole: Tensor, local: LocalParameter) -> Tensor:
    """Return this rank's slice of a logical tensor [outer, length, inner], padding as zeros, flat."""
    logical = local.logical
    piece = whole.new_zeros((logical.outer, local.local_length, logical.inner))
    valid = local.valid_length
    piece[:, :valid] = whole[:, local.start : local.start + valid]
    return piece.reshape(-1)


def write_local(parameter: nn.Parameter, flat: Tensor, copy_rank: int) -> None:
    """Put ``flat``, the whole local tensor, into ``parameter``; under ZeRO-3 only the part this rank keeps."""
    with torch.no_grad():
        if not hasattr(parameter, "ds_tensor"):
            parameter.copy_(flat.view(parameter.shape))
            return
        with kept_part(parameter, writes=True) as kept:
            start = copy_rank * kept.numel()
            valid = max(0, min(kept.numel(), flat.numel() - start))
            kept.zero_()
            kept[:valid].copy_(flat[start : start + valid])


@contextlib.contextmanager
def kept_part(parameter: Any, *, writes: bool = False) -> Iterator[Tensor]:
    """Have in memory what this rank keeps of a parameter under ZeRO-3, flat, where DeepSpeed may keep it in a file.

    Args:
        parameter: as DeepSpeed has cut it.
        writes: what is written to it goes back to the file.
    """
    kept = parameter.ds_tensor
    if kept.status.name == "AVAILABLE":
        yield kept
        return
    swapper = parameter.nvme_swapper
    swapper.swap_in([parameter], async_op=False)
    try:
        yield kept
    finally:
        if writes:
            swapper.swap_out_and_release([parameter])
        else:
            swapper.remove_partition_and_release_buffers([parameter])


def initialise(
    model: nn.Module,
    config: ModelConfig,
    seed: int,
    *,
    tensor_parallel_size: int,
    tp_rank: int,
    copy_rank: int,
    expert_part: tuple[int, int] = (0, 1),
) -> None:
    """Give every parameter its initial value; the same model for every layout."""
    for local in local_parameters(model, config, tensor_parallel_size, tp_rank, expert_part=expert_part):
        whole = initial_values(local.logical, config, seed)
        write_local(local.parameter, local_slice(whole, local), copy_rank)
