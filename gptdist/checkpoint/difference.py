"""How far the weights and moments of a running model are from those of a checkpoint, whatever layout saved it."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from gptdist.checkpoint.fragments import OptimizerFragments
from gptdist.checkpoint.load import read_range
from gptdist.checkpoint.read import CheckpointReader
from gptdist.config.section import Section
from gptdist.mesh.groups import gather_texts


class TensorDifference(Section):
    """One state of one tensor, running and saved."""

    state: str
    tensor: str
    values: int = 0
    """That differ, of all ranks."""

    largest: float = 0.0
    """Difference of one value."""

    squares: float = 0.0
    """Sum of the squares of all differences."""

    moved_squares: float = 0.0
    """The same from an earlier checkpoint to the saved one."""

    def plus(self, other: "TensorDifference") -> "TensorDifference":
        """Return the difference of two parts together."""
        return TensorDifference(
            state=self.state,
            tensor=self.tensor,
            values=self.values + other.values,
            largest=max(self.largest, other.largest),
            squares=self.squares + other.squares,
            moved_squares=self.moved_squares + other.moved_squares,
        )


def differences(fragments: OptimizerFragments, *, before: Path, saved: Path) -> list[dict[str, object]]:
    """Return a ``TensorDifference`` of every state of every tensor as plain data, in the checkpoint's order.

    A value that is not finite counts as different, with the largest finite number as its difference. Each rank reads
    what it holds of one tensor at a time. Collective: every rank calls it.

    Args:
        fragments: of the running model.
        before: an earlier checkpoint, to tell how far the saved one has moved.
        saved: the checkpoint to compare with.
    """
    earlier, reader = (CheckpointReader(folder, merges_adapters=False) for folder in (before, saved))
    found: dict[tuple[str, str], TensorDifference] = {}
    for state, name, *values in _triples(fragments, earlier, reader):
        part = _difference(state, name, *values)
        found[state, name] = found[state, name].plus(part) if (state, name) in found else part
    merged: dict[tuple[str, str], list[TensorDifference]] = defaultdict(list)
    for text in gather_texts(json.dumps([one.tree() for one in found.values()])):
        for tree in json.loads(text):
            part = TensorDifference.from_tree(tree)
            merged[part.state, part.tensor].append(part)
    order = [(state, entry.name) for entry in reader.manifest.tensors for state in entry.states]
    whole = [(entry.state, entry.tensor) for entry in reader.manifest.whole_states]
    for key in whole:
        merged[key] = merged[key][:1]  # every rank has said it
    return [_sum(merged[key]).tree() for key in order + whole if merged[key]]


_LARGEST = 3e38
"""Stands for infinity, which JSON has no word for."""


def _triples(
    fragments: OptimizerFragments, earlier: CheckpointReader, reader: CheckpointReader
) -> Iterator[tuple[str, str, Tensor, Tensor, Tensor]]:
    """Yield state, tensor, and the values of now, as saved, and of the earlier checkpoint."""
    for fragment in fragments.all():
        count, name = fragment.valid_numel, fragment.local.logical.name
        for state, values in fragment.states.items():
            was, before = (read_range(one, fragment, state)[:count] for one in (reader, earlier))
            yield state, name, values[:count], was, before
    for whole in fragments.whole_states():
        name, shape = whole.local.logical.name, tuple(whole.values.shape)
        was, before = (one.whole_state(name, whole.state, shape) for one in (reader, earlier))
        yield whole.state, name, whole.values, was, before


def _difference(state: str, name: str, values: Tensor, was: Tensor, before: Tensor) -> TensorDifference:
    apart = (values.detach().cpu().double() - was.double()).nan_to_num(nan=float("inf")).clamp(-_LARGEST, _LARGEST)
    moved = (was.double() - before.double()).nan_to_num()
    return TensorDifference(
        state=state,
        tensor=name,
        values=int((apart != 0).sum()),
        largest=float(apart.abs().max()) if apart.numel() else 0.0,
        squares=float((apart * apart).sum()),
        moved_squares=float((moved * moved).sum()),
    )


def _sum(parts: list[TensorDifference]) -> TensorDifference:
    total = parts[0]
    for part in parts[1:]:
        total = total.plus(part)
    return total
