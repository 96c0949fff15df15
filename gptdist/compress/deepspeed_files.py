"""fp32 weights out of the files that DeepSpeed's own ``save_checkpoint`` writes of this model, tensor by tensor.

A rank's share of a group of parameters is one flat tensor. ZeRO 1 and 2 note for each rank where in it which parameter
lies; ZeRO 3 gives each rank the same number of values of each parameter, in the order of ``param_shapes``. Without ZeRO
the weights are the module's own.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address
from torch import Tensor

from gptdist.checkpoint.manifest import plain_file_name
from gptdist.compress.pickled import load_pickled
from gptdist.config.model import ModelConfig
from gptdist.config.vocabulary import padded_vocab_size
from gptdist.errors import ModelImportError
from gptdist.model.hf_names import logical_shapes
from gptdist.model.parameters import VOCABULARY_TENSORS, LogicalTensor, logical_tensor

CLASSES = (DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address)
"""All that such files of DeepSpeed 0.19.8 name beside tensors and plain data; none does anything when it is built."""

_MODEL_FILE = re.compile(r"(?:zero_pp_rank_(\d+)_)?mp_rank_(\d+)_model_states\.pt")
_OPTIMIZER_FILE = re.compile(r"(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt")


@dataclass(frozen=True)
class _Part:
    """A range of a flat tensor."""

    flat: Tensor
    start: int
    numel: int

    def values(self) -> Tensor:
        return self.flat.detach().reshape(-1)[self.start : self.start + self.numel]


@dataclass(frozen=True)
class _Local:
    """One model-parallel rank's part of a parameter, in pieces."""

    shape: tuple[int, ...]
    parts: Sequence[_Part]

    @property
    def numel(self) -> int:
        return sum(part.values().numel() for part in self.parts)

    def values(self) -> Tensor:
        return torch.cat([part.values() for part in self.parts]).float()


class DeepSpeedWeights:
    """The weights of a folder that DeepSpeed wrote."""

    def __init__(self, folder: Path) -> None:
        """Look into ``folder``: the one with ``latest``, or that of one tag.

        Raises:
            ModelImportError: files are missing or damaged, name other classes, or are of a kind not known here.
        """
        self.folder = _tag_folder(folder)
        if not self.folder.is_dir():
            raise ModelImportError(f"{self.folder}: no such folder; name one that DeepSpeed saved to")
        self.paths: list[Path] = []
        """The files that were read."""

        self.step = 0
        """Optimizer steps done."""

        try:
            self._ranks = self._open()
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise ModelImportError(
                f"{self.folder}: not as DeepSpeed 0.19 writes its files ({error!r}); take another copy"
            ) from None

    def _open(self) -> list[dict[str, _Local]]:
        """Return the parameters of each model-parallel rank."""
        models, optimizers = _files(self.folder, _MODEL_FILE), _files(self.folder, _OPTIMIZER_FILE)
        if not models:
            raise ModelImportError(f"{self.folder}: holds no model_states.pt of DeepSpeed; name a folder it saved to")
        ranks: list[dict[str, _Local]] = []
        world = 1
        while len(ranks) < world:
            rank = len(ranks)
            state = self._load(next((path for place, path in models.items() if place[1] == rank), None), rank)
            world, self.step = int(state["mp_world_size"]), int(state["global_steps"])
            if state["frozen_param_shapes"]:
                raise ModelImportError(f"{self.folder}: holds frozen parameters; only trained ones can be imported")
            if state["param_shapes"] is None:
                ranks.append(self._whole_locals(state["module"]))
                continue
            replicas = range(int(state["dp_world_size"]))
            shares = [self._load(optimizers.get((replica, rank)), rank, replica) for replica in replicas]
            ranks.append(self._zero_locals(state["param_shapes"], [share["optimizer_state_dict"] for share in shares]))
        return ranks

    def _load(self, path: Path | None, rank: int, replica: int | None = None) -> Any:
        if path is None:
            kind = "model_states.pt" if replica is None else f"optim_states.pt of ZeRO rank {replica}"
            raise ModelImportError(
                f"{self.folder}: the {kind} of model-parallel rank {rank} is missing; take a whole copy"
            )
        self.paths.append(path)
        return load_pickled(path, CLASSES)

    def _whole_locals(self, module: Mapping[str, Tensor | None]) -> dict[str, _Local]:
        """Without ZeRO: the module's parameters, beside which megatron-core stores nothing under some names."""
        tensors = {name: tensor for name, tensor in module.items() if tensor is not None}
        for name, tensor in tensors.items():
            if tensor.dtype != torch.float32:
                raise ModelImportError(
                    f"{self.folder}: '{name}' is {tensor.dtype}, and no weights in fp32 are beside it"
                )
        return {
            name: _Local(tuple(tensor.shape), [_Part(tensor, 0, tensor.numel())]) for name, tensor in tensors.items()
        }

    def _zero_locals(self, groups: Sequence[Mapping[str, Any]], shares: Sequence[Any]) -> dict[str, _Local]:
        """The parameters of one model-parallel rank, from the shares of its ZeRO ranks."""
        if "fp32_flat_groups" in shares[0]:
            return self._zero3_locals(groups, [share["fp32_flat_groups"] for share in shares])
        found = {}
        for index, shapes in enumerate(groups):
            for name, shape in shapes.items():
                parts = [
                    _Part(share["single_partition_of_fp32_groups"][index], place.start, place.numel)
                    for share in shares
                    if (place := share["param_slice_mappings"][index].get(name)) is not None
                ]
                found[name] = _Local(tuple(shape), parts)
        return found

    def _zero3_locals(
        self, groups: Sequence[Mapping[str, Any]], flats: Sequence[Sequence[Tensor]]
    ) -> dict[str, _Local]:
        found, offset = {}, 0
        for name, shape in (item for shapes in groups for item in shapes.items()):
            numel = math.prod(shape)
            share = -(-numel // len(flats))
            parts = []
            for replica, held in enumerate(flats):
                parts += _range(held, offset, offset + max(0, min(share, numel - replica * share)))
            found[name] = _Local(tuple(shape), parts)
            offset += share
        sizes = {sum(flat.numel() for flat in held) for held in flats}
        if sizes != {offset}:
            raise ModelImportError(
                f"{self.folder}: ZeRO 3 ranks hold {sorted(sizes)} values, the parameters are {offset} on each; "
                f"parameters of some other partition cannot be imported"
            )
        return found

    def weights(self, model: ModelConfig) -> Iterator[tuple[str, Tensor]]:
        """Yield every logical tensor of ``model`` in fp32, with one of them in memory at a time.

        Raises:
            ModelImportError: a tensor is missing, left over, of another shape, or not the same on ranks that all hold
                the whole of it.
        """
        shapes = logical_shapes(model)
        for rank, locals_ in enumerate(self._ranks):
            for names, fact in ((shapes.keys() - locals_.keys(), "lacks"), (locals_.keys() - shapes.keys(), "holds")):
                if names:
                    raise ModelImportError(
                        f"{self.folder}: model-parallel rank {rank} {fact} '{min(names)}' other than the config's "
                        f"model; take the config it was trained with (stages of a pipeline cannot be imported)"
                    )
        for name, shape in shapes.items():
            yield name, self._merged(logical_tensor(name, shape, model), model)

    def _merged(self, logical: LogicalTensor, model: ModelConfig) -> Tensor:
        """Return a whole tensor; vocabulary padding is left out."""
        pieces = [self._piece(rank, logical, model) for rank in range(len(self._ranks))]
        if logical.is_split:
            return torch.cat(pieces, dim=1)[:, : logical.length].reshape(logical.shape)
        for rank, piece in enumerate(pieces):
            if not torch.equal(piece, pieces[0]):
                raise ModelImportError(
                    f"{self.folder}: '{logical.name}' is not the same on model-parallel ranks 0 and {rank}; "
                    f"take an earlier copy, the run had drifted apart"
                )
        return pieces[0].reshape(logical.shape)

    def _piece(self, rank: int, logical: LogicalTensor, model: ModelConfig) -> Tensor:
        """Return a model-parallel rank's part, [outer, its length, inner]."""
        local, world = self._ranks[rank][logical.name], len(self._ranks)
        count = world if logical.is_split else 1
        is_padded = logical.name in VOCABULARY_TENSORS
        length = (padded_vocab_size(model.vocab_size, world) if is_padded else logical.length) // count
        expected = logical.outer * length * logical.inner
        if math.prod(local.shape) != expected or local.numel != expected:
            raise ModelImportError(
                f"{self.folder}: '{logical.name}' of model-parallel rank {rank} is {list(local.shape)} in "
                f"{local.numel} values, a part of {list(logical.shape)} on {world} ranks has {expected}; take the "
                f"config it was trained with"
            )
        return local.values().view(logical.outer, length, logical.inner)


def _tag_folder(folder: Path) -> Path:
    """Return the folder of the newest tag, or ``folder`` itself."""
    latest = folder / "latest"
    if not latest.is_file():
        return folder
    try:
        return folder / plain_file_name(latest.read_text(encoding="utf-8").strip())
    except (OSError, ValueError) as error:
        raise ModelImportError(f"{latest}: names no folder ({error}); name the folder of a tag") from None


def _files(folder: Path, pattern: re.Pattern[str]) -> dict[tuple[int, int], Path]:
    """Return the files by ZeRO rank and model-parallel rank."""
    found: dict[tuple[int, int], Path] = {}
    for path in sorted(folder.glob("*.pt")):
        if (match := pattern.fullmatch(path.name)) is not None:
            place = int(match[1] or 0), int(match[2])
            if place in found:
                raise ModelImportError(f"{path} and {found[place].name}: of the same rank; remove what is not needed")
            found[place] = path
    return found


def _range(flats: Sequence[Tensor], start: int, stop: int) -> list[_Part]:
    """Return values ``start`` … ``stop - 1`` of flat tensors that are thought one behind the other."""
    parts, begin = [], 0
    for flat in flats:
        low, high = max(start, begin), min(stop, begin + flat.numel())
        if low < high:
            parts.append(_Part(flat, low - begin, high - low))
        begin += flat.numel()
    return parts
