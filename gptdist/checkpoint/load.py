"""Put a checkpoint into a run of any layout: each rank reads the ranges that it will hold."""

import logging
import math

import torch
import torch.distributed as dist
from torch import Tensor

from gptdist.checkpoint.fragments import Fragment, OptimizerFragments
from gptdist.checkpoint.manifest import WEIGHT
from gptdist.checkpoint.read import CheckpointReader
from gptdist.errors import CheckpointError
from gptdist.mesh.groups import Mesh, gather_texts
from gptdist.model.parameters import LocalParameter, is_adapter

logger = logging.getLogger(__name__)


def load_run(reader: CheckpointReader, fragments: OptimizerFragments, mesh: Mesh) -> None:
    """Restore master weights, moments and weights of a run. Collective: every rank calls it.

    Where the optimizer is of another kind than the one that saved, its moments begin at zero, and a warning says so.

    Raises:
        CheckpointError: a tensor is missing, left over, or of another shape, or lacks moments of this very optimizer.
    """
    reader = reader.unmerged()
    _check_names_of_all(reader, fragments.locals, mesh)
    keeps_moments = _keeps_moments(reader, fragments)
    _fill(reader, fragments, keeps_moments=keeps_moments)
    fragments.set_optimizer_step(reader.manifest.progress.optimizer_step if keeps_moments else 0)
    fragments.set_loss_scale(reader.manifest.progress.loss_scale)
    fragments.weights_follow()


def load_initial_weights(reader: CheckpointReader, fragments: OptimizerFragments, mesh: Mesh) -> None:
    """Begin a run with a checkpoint's weights, moments at zero. Collective: every rank calls it.

    Adapters of the checkpoint are in its weights; those of the run keep their initial values.

    Raises:
        CheckpointError: a tensor is missing, left over, or of another shape.
    """
    _check_names_of_all(reader, [one for one in fragments.locals if not is_adapter(one.logical.name)], mesh)
    _fill(reader, fragments, keeps_moments=False)
    fragments.set_optimizer_step(0)
    fragments.weights_follow()


def _check_names_of_all(reader: CheckpointReader, locals_: list[LocalParameter], mesh: Mesh) -> None:
    names = "\n".join(local.logical.name for local in locals_)
    check_names(reader, set("\n".join(gather_texts(names, mesh.pipeline_group)).split("\n")))


def _fill(reader: CheckpointReader, fragments: OptimizerFragments, *, keeps_moments: bool) -> None:
    names = frozenset(reader.tensor_names)
    for fragment in fragments.all(writes=True):
        if fragment.local.logical.name not in names:
            continue  # an adapter that begins anew
        check_shape(reader, fragment.local)
        for state, values in fragment.states.items():
            if state == WEIGHT or keeps_moments:
                read_into(reader, fragment.local, state, fragment.start, values)
            else:
                values.zero_()
    for one in fragments.whole_states():
        if keeps_moments:
            one.values.copy_(reader.whole_state(one.local.logical.name, one.state, tuple(one.values.shape)))
        else:
            one.values.zero_()


def _keeps_moments(reader: CheckpointReader, fragments: OptimizerFragments) -> bool:
    """Return whether the checkpoint's moments are those of this run's kind of optimizer.

    Raises:
        CheckpointError: they should be, and are not.
    """
    was, now = reader.manifest.config["optimizer"]["kind"], fragments.settings.kind
    if was != now:
        if dist.get_rank() == 0:
            logger.warning("optimizer.kind: %s → %s; its moments begin at zero, expect a bend in the loss", was, now)
        return False
    for local in fragments.locals:
        entry, wanted = reader.entry(local.logical.name), fragments.states_of(local)
        if set(entry.states) != set(wanted):
            raise CheckpointError(
                f"{reader.folder}: '{entry.name}' has the states {', '.join(entry.states)}, {now} needs "
                f"{', '.join(wanted)}; the manifest is damaged, use an older checkpoint"
            )
    return True


def load_weights(reader: CheckpointReader, locals_: list[LocalParameter]) -> None:
    """Put a checkpoint's weights into a model without an optimizer, in the model's number format.

    Raises:
        CheckpointError: a tensor is missing, left over, or of another shape.
    """
    check_names(reader, {local.logical.name for local in locals_})
    for local in locals_:
        check_shape(reader, local)
        read_into(reader, local, WEIGHT, 0, local.parameter.data.view(-1))


def check_names(reader: CheckpointReader, wanted: set[str]) -> None:
    """Refuse a checkpoint that holds other tensors than the model has.

    Raises:
        CheckpointError: names the tensors that are too many or too few.
    """
    found = set(reader.tensor_names)
    for names, fact in ((wanted - found, "lacks"), (found - wanted, "has besides the model's")):
        if names:
            raise CheckpointError(
                f"{reader.folder}: {fact} {len(names)} tensors, such as '{min(names)}'; "
                f"the model section is not the one it was trained with"
            )


def check_shape(reader: CheckpointReader, local: LocalParameter) -> None:
    """Refuse a tensor of another shape.

    Raises:
        CheckpointError: names tensor and both shapes.
    """
    entry, logical = reader.entry(local.logical.name), local.logical
    if entry.shape != logical.shape or (entry.outer, entry.length, entry.inner) != logical.box():
        raise CheckpointError(
            f"{reader.folder}: '{entry.name}' is {list(entry.shape)}, the model's is {list(logical.shape)}; "
            f"the model section is not the one it was trained with"
        )


def read_range(reader: CheckpointReader, fragment: Fragment, state: str) -> Tensor:
    """Return the values of one fragment, flat in fp32."""
    values = torch.empty(fragment.numel)
    read_into(reader, fragment.local, state, fragment.start, values)
    return values


def read_into(reader: CheckpointReader, local: LocalParameter, state: str, start: int, target: Tensor) -> None:
    """Fill the flat ``target`` with the values of a local tensor from ``start`` on; padding becomes zero.

    fp32 in this machine's memory is filled straight from the file, anything else through a copy of its size.

    Raises:
        CheckpointError: values are missing.
    """
    if target.is_cuda or target.dtype != torch.float32 or not target.is_contiguous():
        values = torch.empty(target.numel())
        read_into(reader, local, state, start, values)
        target.copy_(values)
        return
    entry, logical = reader.entry(local.logical.name), local.logical
    is_cut_alike = entry.slice_length == local.local_length and entry.num_slices == local.num_slices
    if is_cut_alike and (logical.outer == 1 or local.valid_length == local.local_length):
        valid = min(max(0, logical.outer * local.valid_length * logical.inner - start), target.numel())
        if valid:
            reader.read_flat(logical.name, state, local.slice_index, start, target[:valid])
        target[valid:] = 0
    else:
        _read_recut(reader, local, state, start, target)


def _read_recut(reader: CheckpointReader, local: LocalParameter, state: str, start: int, target: Tensor) -> None:
    """Do the same where the checkpoint's slices are other ones.

    The range is widened to whole rows of [outer, local_length, inner], or, where it lies within one row, to whole
    ``inner`` vectors: nothing else is read.
    """
    logical, inner = local.logical, local.logical.inner
    row, numel = local.local_length * inner, target.numel()
    first_row, behind_row = start // row, -(-(start + numel) // row)
    begin, end = 0, local.local_length
    if behind_row - first_row == 1:
        begin = (start - first_row * row) // inner
        end = -(-(start + numel - first_row * row) // inner)
    shape = behind_row - first_row, end - begin, inner
    is_exact = math.prod(shape) == numel
    block = target.view(shape) if is_exact else torch.empty(shape)
    valid = max(0, min(end, local.valid_length) - begin)
    block[:, valid:] = 0
    if valid:
        reader.read_block(logical.name, state, (first_row, local.start + begin), block[:, :valid])
    if not is_exact:
        skipped = start - (first_row * row + begin * inner)
        target.copy_(block.view(-1)[skipped : skipped + numel])
