"""Read any part of any tensor of a checkpoint, whatever layout wrote it."""

from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

from gptdist.checkpoint.hold import hold
from gptdist.checkpoint.manifest import WEIGHT, FragmentEntry, TensorEntry, read_manifest
from gptdist.checkpoint.sealed_tensors import SealedTensors
from gptdist.checkpoint.seals import key_to_read
from gptdist.checkpoint.tensor_file import TensorFile
from gptdist.errors import CheckpointError


class CheckpointReader:
    """The tensors of one step folder, by logical name; no rule deletes the folder while this exists."""

    def __init__(self, folder: Path) -> None:
        """Open the checkpoint in ``folder``; hashes are not checked here (see ``verify``).

        Raises:
            CheckpointError: the manifest is missing or damaged, or the checkpoint is being deleted.
        """
        self.folder = folder
        self._held = hold(folder)
        self.manifest = read_manifest(folder)
        self._tensors = {entry.name: entry for entry in self.manifest.tensors}
        self._fragments: dict[tuple[str, int], list[FragmentEntry]] = defaultdict(list)
        for fragment in self.manifest.fragments:
            self._fragments[fragment.tensor, fragment.slice_index].append(fragment)
        self._files: dict[str, TensorFile | SealedTensors] = {}

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """Names of all logical tensors, in the model's order."""
        return tuple(self._tensors)

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
        entry = self.entry(name)
        rows, inner, length = outer[1] - outer[0], entry.inner, entry.slice_length
        block = torch.empty(rows, along[1] - along[0], inner)
        for index in range(entry.num_slices):
            slice_begin = index * length
            begin = max(along[0], slice_begin)
            end = min(along[1], slice_begin + length, entry.length)
            if begin >= end:
                continue
            first = (outer[0] * length + begin - slice_begin) * inner
            behind = ((outer[1] - 1) * length + end - slice_begin) * inner
            flat = self._flat(name, state, index, first, behind)
            piece = flat.as_strided((rows, end - begin, inner), (length * inner, inner, 1))
            block[:, begin - along[0] : end - along[0]] = piece
        return block

    def _flat(self, name: str, state: str, slice_index: int, first: int, behind: int) -> Tensor:
        """Return values ``first`` … ``behind - 1`` of a flat slice, put together from its fragments."""
        flat = torch.empty(behind - first)
        found = 0
        for fragment in self._fragments[name, slice_index]:
            begin, end = max(first, fragment.start), min(behind, fragment.start + fragment.numel)
            if begin < end:
                values = self._open(fragment.file).read(f"{state}/{name}", begin - fragment.start, end - fragment.start)
                flat[begin - first : end - first] = values
                found += end - begin
        if found != behind - first:
            raise CheckpointError(
                f"{self.folder}: {state} of '{name}' has {found} of {behind - first} values in slice {slice_index}; "
                f"the checkpoint is incomplete, use an older one"
            )
        return flat

    def _open(self, name: str) -> TensorFile | SealedTensors:
        if name not in self._files:
            path, key = self.folder / name, key_to_read(self.folder, self.manifest)
            self._files[name] = TensorFile(path) if key is None else SealedTensors(path, key)
        return self._files[name]
