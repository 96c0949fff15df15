"""Whether ranks that must hold the same weights do: a flipped bit or a lost message shows as a name, not as a loss."""

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import product

import torch
import torch.distributed as dist
from torch import Tensor

from gptdist.errors import TrainingError
from gptdist.mesh.groups import Mesh, gather_texts, max_over_ranks
from gptdist.mesh.layout import Layout, Place
from gptdist.model.parameters import LocalParameter, is_expert, kept_part

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def check_equal_weights(
    parameters: Sequence[LocalParameter], mesh: Mesh, step: int, shared_embedding: Tensor | None = None
) -> None:
    """Compare checksums of what has to be equal bit for bit. Collective: every rank calls it.

    Equal are all weights of data- and context-parallel ranks (under ZeRO-3, which cuts them, there are none), and on
    the ranks of a tensor group the weights that each holds whole; and ``shared_embedding``, which the first and the
    last stage of a pipeline pass where embeddings are tied.

    Communication: an all-reduce of two values a parameter; if it finds a difference, an all-gather of one.

    Raises:
        TrainingError: some differ; on every rank, with the first parameter and the ranks that disagree with the others.
    """
    if mesh.layout.world_size == 1 or not parameters:
        return
    sums = torch.stack([_checksum(local.parameter) for local in parameters])
    is_cut = any(hasattr(local.parameter, "ds_tensor") for local in parameters)
    differs = torch.zeros((), dtype=torch.int64, device=sums.device)
    if mesh.layout.num_copies > 1 and not is_cut:
        experts = torch.tensor([is_expert(local.logical.name) for local in parameters], device=sums.device)
        differs += _differing(sums[~experts], mesh.copies_group).sum()
        differs += _differing(sums[experts], mesh.expert_copies_group).sum()
    if mesh.layout.tensor_parallel_size > 1:
        whole = torch.tensor([not local.logical.is_split for local in parameters], device=sums.device)
        differs += _differing(sums[whole], mesh.tensor_group).sum()
    is_untied = _stages_differ(shared_embedding, mesh, sums.device)
    differs += is_untied
    dist.all_reduce(differs, op=dist.ReduceOp.MAX)
    if int(differs) == 0:
        return
    padded = sums.new_zeros(max_over_ranks(len(sums)))  # stages hold other numbers of parameters
    padded[: len(sums)] = sums
    gathered = [torch.empty_like(padded) for _ in range(mesh.layout.world_size)]
    dist.all_gather(gathered, padded)
    what = _explained(torch.stack(gathered).tolist(), parameters, mesh, is_cut=is_cut)
    if not what and is_untied:
        ranks = dist.get_process_group_ranks(mesh.pipeline_group)
        what = (
            f"embedding.word_embeddings.weight differs between the first and last stage, ranks {ranks[0]}, {ranks[-1]}"
        )
    found = next(text for text in gather_texts(what) if text)
    raise TrainingError(
        f"step {step}: {found}; memory or a message was damaged: take the machine out, and resume from a checkpoint "
        f"before it"
    )


def _stages_differ(shared_embedding: Tensor | None, mesh: Mesh, device: torch.device) -> bool:
    if mesh.layout.pipeline_parallel_size == 1:
        return False
    lowest = torch.full((2,), torch.iinfo(torch.int64).min, device=device)  # of stages that have no part in it
    if shared_embedding is not None:
        total = _checksum(shared_embedding)
        lowest = torch.stack([total, -total])
    dist.all_reduce(lowest, op=dist.ReduceOp.MAX, group=mesh.pipeline_group)
    return bool(lowest[0] != -lowest[1])


def _checksum(parameter: Tensor) -> Tensor:
    """Return the sum of the bits that this rank holds, as integers of 64 bits that may wrap."""
    with kept_part(parameter) if hasattr(parameter, "ds_tensor") else nullcontext(parameter) as kept:
        held: Tensor = kept.detach().contiguous().reshape(-1)
        return held.view(_BITS[held.element_size()]).sum(dtype=torch.int64)


def _differing(sums: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Return where ranks of ``group`` have other values."""
    both = torch.stack([sums, -sums])
    dist.all_reduce(both, op=dist.ReduceOp.MAX, group=group)
    return both[0] != -both[1]


def _explained(sums: list[list[int]], parameters: Sequence[LocalParameter], mesh: Mesh, *, is_cut: bool) -> str:
    """Return what differs among the ranks of this rank's stage; nothing where they agree."""
    for index, local in enumerate(parameters):
        parts = mesh.layout.expert_parallel_size if is_expert(local.logical.name) else 1
        stage, is_split = mesh.place.pp_rank, local.logical.is_split
        for axis, ranks in _equal_ranks(mesh.layout, stage, parts, is_split=is_split, is_cut=is_cut):
            found = Counter(sums[rank][index] for rank in ranks)
            if len(found) > 1:
                right, count = found.most_common(1)[0]
                wrong = [rank for rank in ranks if sums[rank][index] != right]
                others = [rank for rank in ranks if rank not in wrong]
                what = f"on rank {_listed(wrong)} is not what its {axis} ranks {_listed(others)} hold"
                if 2 * count <= len(ranks):
                    what = f"differs between its {axis} ranks {_listed(ranks)}"
                return f"{local.logical.name} {what}"
    return ""


def _listed(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks))


def _equal_ranks(
    layout: Layout, stage: int, parts: int, *, is_split: bool, is_cut: bool
) -> list[tuple[str, list[int]]]:
    """Return the groups of ranks on which a parameter has to be equal, and along which axis.

    Args:
        layout: of the ranks.
        stage: that holds it.
        parts: into which copies split it.
        is_split: whether tensor parallelism cuts it.
        is_cut: whether ZeRO cuts it.
    """
    groups = []
    copies = list(product(range(layout.data_parallel_size), range(layout.context_parallel_size)))
    axis = "data-parallel" if layout.context_parallel_size == 1 else "data- and context-parallel"
    if not is_cut:
        for tensor in range(layout.tensor_parallel_size):
            places = [Place(tensor, context, data, stage) for data, context in copies]
            ranks = [layout.rank(place) for place in places]
            groups += [(axis, ranks[part::parts]) for part in range(parts) if len(ranks) > parts]
    if not is_split:
        for data, context in copies:
            places = [Place(tensor, context, data, stage) for tensor in range(layout.tensor_parallel_size)]
            groups.append(("tensor-parallel", [layout.rank(place) for place in places]))
    return groups
