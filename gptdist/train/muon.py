"""Muon: updates of hidden matrices are made orthogonal; everything else gets AdamW.

The mean of gradients is kept value by value, wherever ZeRO put the values. Only for the update is a matrix put
together, across ranks that hold the same weights and across tensor-parallel ones; one of the former works on it, with
its tensor group, and gives the others their parts back.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from gptdist.checkpoint.fragments import OptimizerFragments, Piece
from gptdist.config.model import ModelConfig
from gptdist.config.optimization import OptimizerConfig
from gptdist.mesh.groups import Mesh
from gptdist.model.parameters import LocalParameter, local_slice, matrices_of

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of X, X X^T X and (X X^T)^2 X in one step of the iteration."""

NEWTON_SCHULZ_STEPS = 5

UPDATE_RMS = 0.2
"""Root mean square of AdamW's usual updates, which Muon's are scaled to."""

IS_HIDDEN = "is_hidden_matrices"
"""Key of a parameter group: whether Muon is for it."""


def orthogonalised(matrices: Tensor, work_type: torch.dtype) -> Tensor:
    """Return about the nearest matrices with equal singular values, scaled to AdamW's root mean square.

    Shapes: [..., rows, columns], each matrix for itself.

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks" (iteration and coefficients);
    Liu et al. 2025, "Muon is Scalable for LLM Training", arXiv 2502.16982, section 2.2 (scale).
    """
    rows, columns = matrices.shape[-2:]
    a, b, c = NEWTON_SCHULZ
    x = matrices.to(work_type)
    if rows > columns:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    if rows > columns:
        x = x.mT
    return x.float() * (UPDATE_RMS * math.sqrt(max(rows, columns)))


@dataclass(frozen=True)
class WholeMatrices:
    """Puts updates of whole matrices together from what each rank holds of them."""

    mesh: Mesh
    model: ModelConfig
    is_cut: bool
    """Whether ZeRO has cut the weights over the ranks that hold the same ones."""

    def update(self, pieces: Sequence[Piece], values: Tensor) -> None:
        """Replace ``values``, this rank's pieces of some tensors, by those of their orthogonal updates.

        Collective: every rank that holds pieces of these tensors calls it.

        Communication: of each tensor a reduce and a broadcast over the copies group, if ZeRO has cut it, and one
        all-reduce over the tensor group between them.
        """
        copies = self.mesh.layout.num_copies if self.is_cut else 1
        for first in range(0, len(pieces), copies):
            wave = [(piece, self._scattered(piece, values)) for piece in pieces[first : first + copies]]
            if copies > 1:
                for owner, (_, local) in enumerate(wave):
                    dist.reduce(local, group_dst=owner, group=self.mesh.copies_group)
            mine = self.mesh.copy_rank if copies > 1 else 0
            if mine < len(wave):
                piece, local = wave[mine]
                local.copy_(self._orthogonal(piece.local, local))
            for owner, (piece, local) in enumerate(wave):
                if copies > 1:
                    dist.broadcast(local, group_src=owner, group=self.mesh.copies_group)
                values[piece.offset : piece.offset + piece.numel] = local[piece.start : piece.start + piece.numel]

    def _scattered(self, piece: Piece, values: Tensor) -> Tensor:
        """Return the flat local tensor with this rank's piece in its place, and zeros around it."""
        local = values.new_zeros(piece.local.numel)
        local[piece.start : piece.start + piece.numel] = values[piece.offset : piece.offset + piece.numel]
        return local

    def _orthogonal(self, local: LocalParameter, values: Tensor) -> Tensor:
        """Return the flat local tensor's part of the orthogonal update. Collective: a whole tensor group calls it."""
        logical = local.logical
        whole = values.new_zeros(logical.box())
        whole[:, local.start : local.start + local.local_length] = values.view(logical.outer, -1, logical.inner)
        if logical.is_split and self.mesh.layout.tensor_parallel_size > 1:
            dist.all_reduce(whole, group=self.mesh.tensor_group)
        work_type = torch.bfloat16 if values.is_cuda else torch.float32
        for part in matrices_of(whole.view(logical.shape), logical.name, self.model):
            matrix = part if part.dim() < 4 else part.reshape(-1, part.shape[-1])
            part.copy_(orthogonalised(matrix, work_type).view(part.shape))
        return local_slice(whole, local)


class Muon(torch.optim.AdamW):
    """Muon for parameter groups that say so, AdamW for the others."""

    def __init__(self, groups: list[dict[str, Any]], settings: OptimizerConfig) -> None:
        """Optimize ``groups``; ``attach`` has to follow before the first step."""
        super().__init__(groups, betas=settings.betas, eps=settings.epsilon, fused=True)
        self._momentum = settings.momentum
        self._pieces: Mapping[Tensor, Sequence[Piece]] = {}
        self._matrices: WholeMatrices | None = None

    def attach(self, fragments: OptimizerFragments, mesh: Mesh, model: ModelConfig) -> None:
        """Learn which parts of which matrices the tensors hold that are optimized."""
        self._pieces = fragments.pieces()
        self._matrices = WholeMatrices(mesh, model, is_cut=not fragments.is_plain)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # takes no closure
        """Update all groups. Collective: every rank calls it, with the same groups."""
        assert closure is None, "the loss is not computed again"
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group[IS_HIDDEN]]
        if self.param_groups:
            super().step()
        self.param_groups = groups
        for group in groups:
            if group[IS_HIDDEN]:
                for flat in group["params"]:
                    self._step_matrices(group, flat)

    def _step_matrices(self, group: dict[str, Any], flat: Tensor) -> None:
        assert self._matrices is not None, "attach comes first"
        assert flat.grad is not None, "a rank without gradient would leave the others waiting"
        state = self.state[flat]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(flat)
        mean = state["momentum_buffer"].lerp_(flat.grad, 1 - self._momentum)
        values = flat.grad.lerp(mean, self._momentum).reshape(-1)
        self._matrices.update(self._pieces[flat], values)
        flat.mul_(1 - group["lr"] * group["weight_decay"]).add_(values.view_as(flat), alpha=-group["lr"])
