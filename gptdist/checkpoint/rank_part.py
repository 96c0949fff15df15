"""What one rank writes of a checkpoint: the values it answers for, and what the manifest will say of them."""

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from gptdist.checkpoint.fragments import OptimizerFragments, Piece, WholeState
from gptdist.checkpoint.manifest import FragmentEntry, TensorEntry, WholeStateEntry
from gptdist.mesh.groups import Mesh
from gptdist.model.parameters import is_expert


@dataclass(frozen=True)
class RankPart:
    """A rank's values with their description."""

    file_name: str
    sizes: dict[str, int]
    """Number of values of each flat tensor by its key in the file, where it is written in fp32."""

    tensors: tuple[TensorEntry, ...]
    fragments: tuple[FragmentEntry, ...]
    whole_states: tuple[WholeStateEntry, ...]
    held: OptimizerFragments
    shares: tuple[tuple[int, int], ...]
    """First value and the one behind the last, of each fragment that is held."""

    @classmethod
    def of(cls, fragments: OptimizerFragments, mesh: Mesh) -> Self:
        """Return what this rank writes."""
        sizes: dict[str, int] = {}
        tensors: list[TensorEntry] = []
        entries: list[FragmentEntry] = []
        shares: list[tuple[int, int]] = []
        name = f"rank_{mesh.rank:05d}.safetensors"
        for piece in (piece for pieces in fragments.pieces().values() for piece in pieces if piece.numel):
            logical, states = piece.local.logical, fragments.states_of(piece.local)
            # What every replica holds, as all of a plain optimizer: each writes a part.
            begin, end = _share(piece, mesh) if fragments.is_alike_on_replicas(piece) else (0, piece.valid_numel)
            is_anothers = not logical.is_split and mesh.place.tp_rank > 0  # rank 0 writes what all of them hold
            shares.append((0, 0) if is_anothers else (begin, end))
            if is_anothers:
                continue
            tensors.append(_tensor_entry(piece, states))
            if begin >= end:
                continue  # nothing but padding
            sizes.update({f"{state}/{logical.name}": end - begin for state in states})
            entries.append(
                FragmentEntry(
                    tensor=logical.name,
                    slice_index=piece.local.slice_index,
                    start=piece.start + begin,
                    numel=end - begin,
                    file=name,
                )
            )
        is_writer = mesh.place.tp_rank == mesh.copy_rank == 0  # of its pipeline stage
        whole = tuple(_whole_state_entry(one, name) for one in fragments.whole_states()) if is_writer else ()
        sizes.update({f"{entry.state}/{entry.tensor}": math.prod(entry.shape) for entry in whole})
        return cls(name, sizes, tuple(tensors), tuple(entries), whole, fragments, tuple(shares))

    def values(self) -> Generator[tuple[str, Tensor]]:
        """Yield key and values of each tensor, as they are now; each may be gone when the next one is asked for."""
        for fragment, (begin, end) in zip(self.held.all(), self.shares, strict=True):
            if begin < end:
                for state, values in fragment.states.items():
                    yield f"{state}/{fragment.local.logical.name}", values[begin:end]
        for one in self.held.whole_states() if self.whole_states else ():
            yield f"{one.state}/{one.local.logical.name}", one.values.view(-1)

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return next((flat.device for flat in self.held.pieces()), torch.device("cpu"))

    @property
    def num_bytes(self) -> int:
        """Bytes of all values as they are written."""
        return 4 * sum(self.sizes.values())


def _tensor_entry(piece: Piece, states: tuple[str, ...]) -> TensorEntry:
    local, logical = piece.local, piece.local.logical
    return TensorEntry(
        name=logical.name,
        shape=logical.shape,
        outer=logical.outer,
        length=logical.length,
        inner=logical.inner,
        num_slices=local.num_slices,
        slice_length=local.local_length,
        states=states,
    )


def _whole_state_entry(one: WholeState, file_name: str) -> WholeStateEntry:
    return WholeStateEntry(
        tensor=one.local.logical.name, state=one.state, shape=tuple(one.values.shape), file=file_name
    )


def _share(piece: Piece, mesh: Mesh) -> tuple[int, int]:
    """Return the part of what several ranks hold alike that this one writes."""
    numel = piece.valid_numel
    parts = mesh.layout.expert_parallel_size if is_expert(piece.local.logical.name) else 1
    size = -(-numel // (mesh.layout.num_copies // parts))
    begin = min(numel, mesh.copy_rank // parts * size)
    return begin, min(numel, begin + size)
