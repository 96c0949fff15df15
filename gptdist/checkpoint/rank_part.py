"""What one rank writes of a checkpoint: the values it answers for, and what the manifest will say of them."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from gptdist.checkpoint.fragments import Fragment, OptimizerFragments
from gptdist.checkpoint.manifest import FragmentEntry, TensorEntry
from gptdist.mesh.groups import Mesh
from gptdist.model.parameters import is_expert


@dataclass(frozen=True)
class RankPart:
    """A rank's values with their description."""

    file_name: str
    values: dict[str, Tensor]
    """Flat tensors by their key in the file, each written in fp32."""

    tensors: tuple[TensorEntry, ...]
    fragments: tuple[FragmentEntry, ...]

    @classmethod
    def of(cls, fragments: OptimizerFragments, mesh: Mesh) -> Self:
        """Return what this rank writes; the values are views of memory that the next step changes."""
        values: dict[str, Tensor] = {}
        tensors: list[TensorEntry] = []
        entries: list[FragmentEntry] = []
        name = f"rank_{mesh.rank:05d}.safetensors"
        if not fragments.is_plain:
            shares = [(fragment, 0, fragment.valid_numel) for fragment in fragments.all()]
        else:  # every replica holds everything: each writes a part
            shares = [(fragment, *_share(fragment, mesh)) for fragment in fragments.all()]
        for fragment, begin, end in shares:
            logical = fragment.local.logical
            if not logical.is_split and mesh.place.tp_rank:
                continue  # tensor-parallel rank 0 writes what all of them hold
            tensors.append(_tensor_entry(fragment))
            if begin >= end:
                continue  # nothing but padding
            values.update({f"{state}/{logical.name}": held[begin:end] for state, held in fragment.states.items()})
            entries.append(
                FragmentEntry(
                    tensor=logical.name,
                    slice_index=fragment.local.slice_index,
                    start=fragment.start + begin,
                    numel=end - begin,
                    file=name,
                )
            )
        return cls(name, values, tuple(tensors), tuple(entries))

    @property
    def num_bytes(self) -> int:
        """Bytes of all values as they are written."""
        return 4 * sum(tensor.numel() for tensor in self.values.values())


def _tensor_entry(fragment: Fragment) -> TensorEntry:
    local, logical = fragment.local, fragment.local.logical
    return TensorEntry(
        name=logical.name,
        shape=logical.shape,
        outer=logical.outer,
        length=logical.length,
        inner=logical.inner,
        num_slices=local.num_slices,
        slice_length=local.local_length,
        states=tuple(fragment.states),
    )


def _share(fragment: Fragment, mesh: Mesh) -> tuple[int, int]:
    """Return the part of what several ranks hold alike that this one writes."""
    numel = fragment.valid_numel
    parts = mesh.layout.expert_parallel_size if is_expert(fragment.local.logical.name) else 1
    size = -(-numel // (mesh.layout.num_copies // parts))
    begin = min(numel, mesh.copy_rank // parts * size)
    return begin, min(numel, begin + size)
