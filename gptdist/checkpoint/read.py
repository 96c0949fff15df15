"""Read any part of any tensor of a checkpoint, whatever layout wrote it."""

from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

from gptdist.checkpoint.adapters import Adapters
from gptdist.checkpoint.flat_tensors import FlatTensors
from gptdist.checkpoint.hold import hold
from gptdist.checkpoint.manifest import WEIGHT, FragmentEntry, TensorEntry, read_manifest
from gptdist.checkpoint.seals import key_to_read
from gptdist.errors import CheckpointError


class CheckpointReader:
    """The tensors of one step folder, by logical name; no rule deletes the folder while this exists.

    Adapters are merged: they have no names here, and a weight is what it is together with them.
    """

    def __init__(self, folder: Path, *, merges_adapters: bool = True) -> None:
        """Open the checkpoint in ``folder``; hashes are not checked here (see ``verify``).

        Without ``merges_adapters`` every tensor is as it was saved.

        Raises:
            CheckpointError: the manifest is missing or damaged, or the checkpoint is being deleted.
        """
        self.folder = folder
        self._held = hold(folder)
        self.manifest = read_manifest(folder)
        self._tensors = {entry.name: entry for entry in self.manifest.tensors}
        self._adapters = Adapters.of(self.manifest) if merges_adapters else Adapters.none()
        self._fragments: dict[tuple[str, int], list[FragmentEntry]] = defaultdict(list)
        for fragment in self.manifest.fragments:
            self._fragments[fragment.tensor, fragment.slice_index].append(fragment)
        self._files: dict[str, FlatTensors] = {}

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """Names of all logical tensors, in the model's order."""
        return tuple(name for name in self._tensors if name not in self._adapters.factor_names)

    def entry(self, name: str) -> TensorEntry:
        """Return the description of tensor ``name``.

        Raises:
            CheckpointError: there is none.
        """
        if name not in self._tensors:
            raise CheckpointError(
                f"{self.folder}: holds no tensor '{name}'; the checkpoint is of another model, see its manifest"
            )
        return self._tensors[name]

    def weight(self, name: str) -> Tensor:
        """Return the whole logical tensor ``name`` in fp32."""
        entry = self.entry(name)
        return self.block(name, WEIGHT, outer=(0, entry.outer), along=(0, entry.length)).view(entry.shape)

    def whole_state(self, name: str, state: str, shape: tuple[int, ...]) -> Tensor:
        """Return what the optimizer kept of tensor ``name`` as ``state``, in fp32.

        Raises:
            CheckpointError: there is none, or it is of another shape.
        """
        entry = next((one for one in self.manifest.whole_states if (one.tensor, one.state) == (name, state)), None)
        if entry is None:
            raise CheckpointError(f"{self.folder}: holds no {state} of '{name}'; it is incomplete, use an older one")
        if entry.shape != shape:
            raise CheckpointError(
                f"{self.folder}: {state} of '{name}' is {list(entry.shape)}, the model's is {list(shape)}; "
                f"the model section is not the one it was trained with"
            )
        values = torch.empty(shape)
        self._open(entry.file).read_into(f"{state}/{name}", 0, values.view(-1))
        return values

    def block(self, name: str, state: str, *, outer: tuple[int, int], along: tuple[int, int]) -> Tensor:
        """Return a block of tensor ``name``, [outer, along, inner] in fp32.

        Args:
            name: logical tensor.
            state: one of the tensor's states, such as ``"weight"``.
            outer: first and behind-last index of the first axis.
            along: the same of the axis that layouts cut.

        Raises:
            CheckpointError: values are missing.
        """
        block = torch.empty(outer[1] - outer[0], along[1] - along[0], self.entry(name).inner)
        self.read_block(name, state, (outer[0], along[0]), block)
        return block

    def read_block(self, name: str, state: str, begin: tuple[int, int], target: Tensor) -> None:
        """Fill ``target``, [outer, along, inner] in fp32, with a block of tensor ``name``.

        Where the block lies in one piece, here and there, it is read straight into ``target``.

        Args:
            name: logical tensor.
            state: one of the tensor's states, such as ``"weight"``.
            begin: first index of the first axis, and of the one that layouts cut.
            target: how much is read; in this machine's memory.

        Raises:
            CheckpointError: values are missing.
        """
        entry = self.entry(name)
        (rows, width, inner), length = target.shape, entry.slice_length
        row, along = begin
        assert inner == entry.inner, f"{name}: {inner} values where the checkpoint has {entry.inner}"
        for index in range(entry.num_slices):
            offset = index * length
            first, behind = max(along, offset), min(along + width, offset + length, entry.length)
            if first >= behind:
                continue
            piece = target[:, first - along : behind - along]
            start = (row * length + first - offset) * inner
            stop = ((row + rows - 1) * length + behind - offset) * inner
            if stop - start == piece.numel() and piece.is_contiguous():
                self.read_flat(name, state, index, start, piece.view(-1))
            else:
                flat = torch.empty(stop - start)
                self.read_flat(name, state, index, start, flat)
                piece.copy_(flat.as_strided(piece.shape, (length * inner, inner, 1)))

    def read_flat(self, name: str, state: str, slice_index: int, start: int, target: Tensor) -> None:
        """Fill the flat ``target`` with the values of a flat slice from ``start`` on, put together from its fragments.

        Raises:
            CheckpointError: values are missing.
        """
        stop = start + target.numel()
        found = 0
        for fragment in self._fragments[name, slice_index]:
            begin, end = max(start, fragment.start), min(stop, fragment.start + fragment.numel)
            if begin < end:
                part = target[begin - start : end - start]
                self._open(fragment.file).read_into(f"{state}/{name}", begin - fragment.start, part)
                found += end - begin
        if found != stop - start:
            raise CheckpointError(
                f"{self.folder}: {state} of '{name}' has {found} of {stop - start} values in slice {slice_index}; "
                f"the checkpoint is incomplete, use an older one"
            )
        if state == WEIGHT and name in self._adapters:
            self._adapters.add_to(target, self.entry(name), self.weight, (slice_index, start))

    def unmerged(self) -> "CheckpointReader":
        """Return a reader of the tensors as they were saved."""
        return CheckpointReader(self.folder, merges_adapters=False)

    def _open(self, name: str) -> FlatTensors:
        if name not in self._files:
            self._files[name] = FlatTensors(self.folder / name, key_to_read(self.folder, self.manifest))
        return self._files[name]
