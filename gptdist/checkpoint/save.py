"""Write a checkpoint: every rank its own fragments, the manifest last, then one rename."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from gptdist.checkpoint.find import step_folder_name
from gptdist.checkpoint.fragments import Fragment, OptimizerFragments
from gptdist.checkpoint.identity import RunIdentity
from gptdist.checkpoint.manifest import (
    FORMAT,
    VERSION,
    FileEntry,
    FragmentEntry,
    Manifest,
    Progress,
    RankRecord,
    SavedLayout,
    TensorEntry,
    write_manifest,
)
from gptdist.checkpoint.tensor_file import write_tensors
from gptdist.durable import swap_in, write_whole
from gptdist.errors import CheckpointError
from gptdist.mesh.groups import Mesh, max_over_ranks
from gptdist.model.parameters import is_expert

LATEST_NAME = "latest"
PARTIAL_PREFIX = ".partial-"


def save_checkpoint(
    checkpoints: Path, fragments: OptimizerFragments, progress: Progress, identity: RunIdentity, mesh: Mesh
) -> Path:
    """Write the checkpoint of ``progress.step`` and return its folder. Collective: every rank calls it.

    Until the last rename the folder has another name, so that a kill at any instant leaves either the whole
    checkpoint or none. The data of all ranks must be on one file system that all of them see.

    Raises:
        CheckpointError: a rank could not write, on every rank.
    """
    final = checkpoints / step_folder_name(progress.step)
    partial = checkpoints / f"{PARTIAL_PREFIX}{final.name}"
    problem = ""
    if mesh.is_lead:
        problem = _attempt(lambda: _make_empty(partial))
    if max_over_ranks(len(problem)):
        raise CheckpointError(_failure(partial, problem))
    problem = _attempt(lambda: _write_rank(partial, fragments, mesh))
    if not max_over_ranks(len(problem)) and mesh.is_lead:
        problem = _attempt(lambda: _commit(partial, final, progress, identity, mesh))
    if max_over_ranks(len(problem)):
        raise CheckpointError(_failure(partial, problem))
    return final


def _attempt(work: Callable[[], object]) -> str:
    """Do ``work``; a full or broken disk becomes a text, because the other ranks have to hear of it first."""
    try:
        work()
    except OSError as error:
        return str(error)
    return ""


def _failure(partial: Path, problem: str) -> str:
    reason = problem or "another rank failed, see its message"
    return f"{partial}: not written ({reason}); older checkpoints are untouched, free space or mend the disk"


def _make_empty(folder: Path) -> None:
    """Make the folder of a checkpoint to be; what killed saves have left beside it goes."""
    for left_over in folder.parent.glob(f"{PARTIAL_PREFIX}*"):
        shutil.rmtree(left_over)
    folder.mkdir(parents=True)


def _write_rank(partial: Path, fragments: OptimizerFragments, mesh: Mesh) -> None:
    tensors: dict[str, Tensor] = {}
    entries: list[FragmentEntry] = []
    shapes: list[TensorEntry] = []
    name = f"rank_{mesh.rank:05d}.safetensors"
    held = fragments.all()
    if not fragments.is_plain:
        shares = [(fragment, 0, _valid_numel(fragment)) for fragment in held]
    else:  # every replica holds everything: each writes a part
        shares = [(fragment, *_share(fragment, mesh)) for fragment in held]
    for fragment, begin, end in shares:
        local, logical = fragment.local, fragment.local.logical
        if not logical.is_split and mesh.place.tp_rank:
            continue  # tensor-parallel rank 0 writes what all of them hold
        shapes.append(
            TensorEntry(
                name=logical.name,
                shape=logical.shape,
                outer=logical.outer,
                length=logical.length,
                inner=logical.inner,
                num_slices=local.num_slices,
                slice_length=local.local_length,
                states=tuple(fragment.states),
            )
        )
        if begin >= end:
            continue  # nothing but padding
        tensors.update({f"{state}/{logical.name}": values[begin:end] for state, values in fragment.states.items()})
        entries.append(
            FragmentEntry(
                tensor=logical.name,
                slice_index=local.slice_index,
                start=fragment.start + begin,
                numel=end - begin,
                file=name,
            )
        )
    file = write_tensors(partial / name, tensors)
    record = RankRecord(file=file, tensors=tuple(shapes), fragments=tuple(entries))
    write_whole(_record_path(partial, mesh.rank), json.dumps(record.tree()).encode())


def _share(fragment: Fragment, mesh: Mesh) -> tuple[int, int]:
    """Return the part of what several ranks hold alike that this one writes."""
    numel = _valid_numel(fragment)
    parts = mesh.layout.expert_parallel_size if is_expert(fragment.local.logical.name) else 1
    size = -(-numel // (mesh.layout.num_copies // parts))
    begin = min(numel, mesh.copy_rank // parts * size)
    return begin, min(numel, begin + size)


def _valid_numel(fragment: Fragment) -> int:
    """Return how many of a fragment's values are no padding; padding stands only at the end of a local tensor."""
    local = fragment.local
    assert local.valid_length == local.local_length or local.logical.outer == 1, "padding inside a tensor"
    valid = local.logical.outer * local.valid_length * local.logical.inner
    return max(0, min(fragment.numel, valid - fragment.start))


def _record_path(partial: Path, rank: int) -> Path:
    return partial / f"rank_{rank:05d}.json"


def _commit(partial: Path, final: Path, progress: Progress, identity: RunIdentity, mesh: Mesh) -> None:
    """Merge what the ranks wrote into the manifest, and give the folder its name."""
    tensors: dict[str, TensorEntry] = {}
    fragments: list[FragmentEntry] = []
    files: list[FileEntry] = []
    for rank in range(mesh.layout.world_size):
        path = _record_path(partial, rank)
        record = RankRecord.from_tree(json.loads(path.read_text()), origin=str(path))
        tensors.update({entry.name: entry for entry in record.tensors})
        fragments += record.fragments
        files.append(record.file)
        path.unlink()
    manifest = Manifest(
        format=FORMAT,
        version=VERSION,
        progress=progress,
        config=identity.config,
        tokenizer_fingerprint=identity.tokenizer_fingerprint,
        data_fingerprints=identity.data_fingerprints,
        layout=SavedLayout(
            world_size=mesh.layout.world_size, zero_stage=identity.zero_stage, **dataclasses.asdict(mesh.layout)
        ),
        tensors=tuple(tensors.values()),
        fragments=tuple(fragments),
        files=tuple(files),
    )
    write_manifest(partial, manifest)
    swap_in(partial, final)  # a damaged checkpoint of the same step gives way
    write_whole(final.parent / LATEST_NAME, final.name.encode())
