"""Process groups between the ranks of a layout, and the view of them that DeepSpeed calls ``mpu``."""

from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from gptdist.device import megatron_on_cpu

megatron_on_cpu.install()  # before megatron-core is imported, or all comes with it that a CPU does without

# ruff: noqa: E402
from megatron.core import parallel_state

from gptdist.mesh.context import ContextPart
from gptdist.mesh.layout import Layout, Place


@dataclass(frozen=True)
class Mesh:
    """One rank's place and the groups it communicates in."""

    layout: Layout
    rank: int
    tensor_group: dist.ProcessGroup
    context_group: dist.ProcessGroup
    """Ranks that share the same sequences."""

    data_group: dist.ProcessGroup
    """Ranks that hold the same weights and the same part of other sequences."""

    copies_group: dist.ProcessGroup
    """Ranks that hold the same weights, which is what ZeRO splits over: the data axis and the context axis."""

    expert_group: dist.ProcessGroup
    """Ranks of the copies that together hold the experts once."""

    expert_copies_group: dist.ProcessGroup
    """Ranks of the copies that hold the same experts."""

    pipeline_group: dist.ProcessGroup
    model_group: dist.ProcessGroup
    """Ranks that together hold the weights once: the tensor axis and the pipeline axis."""

    @property
    def place(self) -> Place:
        """Where this rank stands."""
        return self.layout.place(self.rank)

    @property
    def copy_rank(self) -> int:
        """Number of this rank among those that hold the same weights."""
        return self.layout.copy_rank(self.place)

    @property
    def context_part(self) -> ContextPart:
        """Which tokens of its samples this rank holds."""
        return ContextPart.among(self.context_group)

    @property
    def expert_part(self) -> tuple[int, int]:
        """Which part of a tensor-parallel rank's experts this rank holds, of how many."""
        return self.layout.expert_rank(self.place), self.layout.expert_parallel_size

    @property
    def is_lead(self) -> bool:
        """Whether this is rank 0, which decides, logs and commits."""
        return self.rank == 0


def make_mesh(layout: Layout, timeout: timedelta) -> Mesh:
    """Create the process groups of ``layout``. Collective: every rank calls it, after the default group exists.

    Args:
        layout: sizes of the axes.
        timeout: for collectives of every group. megatron-core gives its groups 30 minutes of their own otherwise, and
            a lost rank would go unnoticed for that long.
    """
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=layout.tensor_parallel_size,
        pipeline_model_parallel_size=layout.pipeline_parallel_size,
        context_parallel_size=layout.context_parallel_size,
        expert_model_parallel_size=layout.expert_parallel_size,
        distributed_timeout_minutes=timeout.total_seconds() / 60,
    )
    mesh = Mesh(
        layout=layout,
        rank=dist.get_rank(),
        tensor_group=parallel_state.get_tensor_model_parallel_group(),
        context_group=parallel_state.get_context_parallel_group(),
        data_group=parallel_state.get_data_parallel_group(),
        copies_group=parallel_state.get_data_parallel_group(with_context_parallel=True),
        expert_group=parallel_state.get_expert_model_parallel_group(),
        expert_copies_group=parallel_state.get_expert_data_parallel_group(),
        pipeline_group=parallel_state.get_pipeline_model_parallel_group(),
        model_group=parallel_state.get_model_parallel_group(),
    )
    place = mesh.place
    places = {
        "tensor": (mesh.tensor_group, place.tp_rank),
        "context": (mesh.context_group, place.cp_rank),
        "data": (mesh.data_group, place.dp_rank),
        "copies": (mesh.copies_group, mesh.copy_rank),
        "expert": (mesh.expert_group, layout.expert_rank(place)),
        "expert copies": (mesh.expert_copies_group, mesh.copy_rank // layout.expert_parallel_size),
        "pipeline": (mesh.pipeline_group, place.pp_rank),
        "model": (mesh.model_group, place.pp_rank * layout.tensor_parallel_size + place.tp_rank),
    }
    for axis, (group, expected) in places.items():
        assert dist.get_rank(group) == expected, f"megatron-core orders the ranks of the {axis} group differently"
    return mesh


def destroy_mesh() -> None:
    """Forget all process groups, once every rank is here. Collective: every rank calls it.

    A rank that ends with a status for "run it again" makes mpirun kill the others, who may still be writing.
    """
    dist.barrier()
    parallel_state.destroy_model_parallel()
    dist.destroy_process_group()


class ModelParallelUnit:
    """The questions DeepSpeed asks about the layout, answered from a mesh."""

    def __init__(self, mesh: Mesh) -> None:
        """Answer for ``mesh``."""
        self._mesh = mesh

    def get_data_parallel_group(self) -> dist.ProcessGroup:
        """Return the ranks that hold the same part of the model."""
        return self._mesh.copies_group

    def get_data_parallel_rank(self) -> int:
        """Return this rank's place among those."""
        return self._mesh.copy_rank

    def get_data_parallel_world_size(self) -> int:
        """Return the number of those."""
        return self._mesh.layout.num_copies

    def get_model_parallel_group(self) -> dist.ProcessGroup:
        """Return the ranks that together hold the weights once."""
        return self._mesh.model_group

    def get_model_parallel_rank(self) -> int:
        """Return this rank's place among those."""
        return dist.get_rank(self._mesh.model_group)

    def get_model_parallel_world_size(self) -> int:
        """Return the number of those."""
        return self._mesh.layout.tensor_parallel_size * self._mesh.layout.pipeline_parallel_size

    def get_tensor_model_parallel_group(self) -> dist.ProcessGroup:
        """Return the ranks that share each weight matrix."""
        return self._mesh.tensor_group

    def get_tensor_model_parallel_rank(self) -> int:
        """Return this rank's place among those."""
        return self._mesh.place.tp_rank

    def get_tensor_model_parallel_world_size(self) -> int:
        """Return the number of those."""
        return self._mesh.layout.tensor_parallel_size

    def get_tensor_model_parallel_src_rank(self) -> int:
        """Return the first global rank of those."""
        return self._mesh.rank - self._mesh.place.tp_rank


def max_over_ranks(value: int) -> int:
    """Return the largest ``value`` of all ranks. Collective: every rank calls it."""
    if dist.get_world_size() == 1:
        return value
    tensor = torch.tensor([value], dtype=torch.int64, device=communication_device())
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return int(tensor.item())


def broadcast_text(text: str | None) -> str | None:
    """Return rank 0's ``text`` on every rank, as tensors: nothing is unpickled. Collective: every rank calls it."""
    device = communication_device()
    encoded = b"" if text is None else text.encode()
    length = torch.tensor([-1 if text is None else len(encoded)], dtype=torch.int64, device=device)
    dist.broadcast(length, src=0)
    if length.item() < 0:
        return None
    payload = torch.zeros(int(length.item()), dtype=torch.uint8, device=device)
    if dist.get_rank() == 0:
        payload.copy_(torch.frombuffer(bytearray(encoded), dtype=torch.uint8) if encoded else payload)
    dist.broadcast(payload, src=0)
    return bytes(payload.cpu().tolist()).decode()


def gather_texts(text: str, group: dist.ProcessGroup | None = None) -> list[str]:
    """Return the ``text`` of every rank of ``group``, by default of all, in their order.

    Collective: the whole group calls it.
    """
    device = communication_device()
    encoded = torch.tensor(list(text.encode()), dtype=torch.uint8, device=device)
    lengths = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size(group))]
    dist.all_gather(lengths, torch.tensor([len(encoded)], dtype=torch.int64, device=device), group=group)
    longest = max(int(length) for length in lengths)
    texts = [torch.zeros(longest, dtype=torch.uint8, device=device) for _ in lengths]
    padded = torch.zeros(longest, dtype=torch.uint8, device=device)
    padded[: len(encoded)] = encoded
    dist.all_gather(texts, padded, group=group)
    return [bytes(found[: int(length)].cpu().tolist()).decode() for found, length in zip(texts, lengths, strict=True)]


def communication_device() -> torch.device:
    """Return where a tensor must be for the default group's back end."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
