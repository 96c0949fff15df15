"""What DeepSpeed has to know of experts that are split over ranks which otherwise hold the same weights.

It then averages their gradients, and splits their optimizer state, over the ranks that hold the same experts; the
divisor stays the number of all replicas, since an expert's gradient holds the tokens of its whole expert group.
"""

from typing import Any

from deepspeed.moe.layer import MoE
from deepspeed.utils import groups
from torch import nn

from gptdist.mesh.groups import Mesh
from gptdist.model.parameters import is_expert

GROUP_NAME = "ep_size_{}"
"""DeepSpeed's name of a group of experts; it reads the size out of it."""


class _HasExperts(MoE):
    """Nothing but the sign by which DeepSpeed notices that a model has experts."""

    def __init__(self, num_experts: int) -> None:
        nn.Module.__init__(self)
        self.num_experts = num_experts

    def set_deepspeed_parallelism(self, use_data_before_expert_parallel_: bool = False) -> None:
        """Make no groups: the mesh has them."""


def announce_experts(model: nn.Module, mesh: Mesh, num_experts: int) -> None:
    """Mark split experts in ``model``, and hand their groups to DeepSpeed; does nothing where none are split."""
    if mesh.layout.expert_parallel_size == 1:
        return
    name = GROUP_NAME.format(mesh.layout.expert_parallel_size)
    # DeepSpeed has no other way in: it makes such groups itself, without our timeout.
    for held, group in (
        (groups._get_expert_parallel_group_dict(), mesh.expert_group),
        (groups._get_expert_data_parallel_group_dict(), mesh.expert_copies_group),
    ):
        held.clear()
        held[name] = group
    parameter: Any
    for parameter_name, parameter in model.named_parameters():
        if is_expert(parameter_name):
            parameter.allreduce = False
            parameter.group_name = name
    model.add_module("split_experts", _HasExperts(num_experts))


def group_settings(parameter: Any) -> dict[str, Any]:
    """Return what the optimizer's group of ``parameter`` says to DeepSpeed."""
    is_split = getattr(parameter, "allreduce", True) is False
    return {"moe": True, "name": parameter.group_name} if is_split else {}
