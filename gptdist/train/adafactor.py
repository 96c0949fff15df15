"""Adafactor: of a matrix's squared gradients only the means of rows and of columns are kept.

The means are of whole matrices, whatever ZeRO and tensor parallelism cut: each rank adds up the squares that it holds,
the sums are added over the ranks, and every rank keeps the same means. No first moment is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from gptdist.checkpoint.fragments import OptimizerFragments, Piece, WholeState
from gptdist.config.model import ModelConfig
from gptdist.mesh.groups import Mesh, communication_device
from gptdist.model.parameters import LocalParameter, is_expert
from gptdist.train.matrix_pieces import MatrixPiece, held_of

DECAY_EXPONENT = 0.8
"""The mean of step t moves by t^-0.8 towards the newest squares: all of it at first."""

EPSILON = 1e-30
"""Added to the mean squares."""

HIGHEST_RMS = 1.0
"""Root mean square that a matrix's update, before the learning rate, is scaled down to."""

ROW_MEANS, COLUMN_MEANS = "exp_avg_sq_row", "exp_avg_sq_col"


@dataclass(frozen=True)
class SumOverRanks:
    """Adds what ranks have added up of the values that each holds."""

    mesh: Mesh
    is_cut: bool
    """Whether ZeRO has cut the weights over the ranks that hold the same ones."""

    def total(self, locals_: Sequence[LocalParameter], parts: Sequence[Tensor]) -> list[Tensor]:
        """Return the sums over all values of each tensor. Collective: every rank that holds some calls it.

        Args:
            locals_: tensors of one group of parameters, of which either all or none are experts split over ranks.
            parts: a tensor of sums for each.

        Communication: at most an all-reduce of all ``parts`` over the copies group, or, of split experts that ZeRO
        has not cut, over the expert group; and one over the tensor group of those that tensor parallelism cuts.
        """
        layout = self.mesh.layout
        if not any(part.numel() for part in parts):
            return list(parts)
        order = sorted(range(len(parts)), key=lambda index: not locals_[index].logical.is_split)
        flat = torch.cat([parts[index].reshape(-1) for index in order])
        num_split = sum(part.numel() for part, local in zip(parts, locals_, strict=True) if local.logical.is_split)
        sums = flat.to(communication_device())  # offloaded weights are elsewhere
        if self.is_cut and layout.num_copies > 1:
            dist.all_reduce(sums, group=self.mesh.copies_group)
        elif layout.expert_parallel_size > 1 and is_expert(locals_[0].logical.name):
            dist.all_reduce(sums, group=self.mesh.expert_group)
        if num_split and layout.tensor_parallel_size > 1:
            dist.all_reduce(sums[:num_split], group=self.mesh.tensor_group)
        found = dict(zip(order, sums.to(flat.device).split([parts[index].numel() for index in order]), strict=True))
        return [found[index].view_as(part) for index, part in enumerate(parts)]


class Matrices:
    """A tensor of matrices; see ``MatrixPiece`` for the letters e, r and p.

    Source: Shazeer and Stern 2018, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", arXiv 1804.04235,
    algorithm 4.
    """

    def __init__(self, piece: MatrixPiece, device: torch.device) -> None:
        """Begin with means of zero."""
        self.local, self._piece = piece.local, piece
        num_matrices = len(piece.members)
        self.rows = torch.zeros(piece.stacks, piece.num_rows, device=device)
        """Mean square of each row, [e, r]."""

        self.columns = torch.zeros(piece.stacks, num_matrices, piece.columns, device=device)
        """Mean square of each column of each matrix, [e, p, columns]."""

        self._counts = piece.members.sum(1).float()  # rows of each matrix

    def sums(self, grad: Tensor) -> Tensor:
        """Return sums of the squares that this rank holds, of rows and behind them of columns."""
        rows, columns = torch.zeros_like(self.rows), torch.zeros_like(self.columns)
        for chunk in self._piece.chunks:
            squares = self._piece.read(grad, chunk).square()
            rows[chunk.stack, chunk.rows] += squares.sum(1)
            columns[chunk.stack, :, self._piece.column_slice] += self._piece.belongs(chunk) @ squares
        return torch.cat([rows.view(-1), columns.view(-1)])

    def turn(self, grad: Tensor, sums: Tensor, share: float) -> Tensor:
        """Let the means move by ``share`` towards those of ``sums``, and make the gradient the update, in place.

        Return the sums of the squares of the update that this rank holds, [e, p].
        """
        rows, columns = sums.split([self.rows.numel(), self.columns.numel()])
        self.rows.lerp_(rows.view_as(self.rows) / self._piece.columns + EPSILON, share)
        self.columns.lerp_(columns.view_as(self.columns) / self._counts[:, None] + EPSILON, share)
        members = self._piece.members.float()
        means = self.rows @ members.T / self._counts
        # Of V = row x column / mean of rows; row / mean might be rounded to 0.
        by_row, by_column = self.rows.rsqrt() * (means.sqrt() @ members), self.columns.rsqrt()
        found = torch.zeros_like(means)
        for chunk in self._piece.chunks:
            belongs = self._piece.belongs(chunk)
            update = self._piece.read(grad, chunk) * by_row[chunk.stack, chunk.rows, None]
            update *= belongs.T @ by_column[chunk.stack, :, self._piece.column_slice]
            grad[chunk.begin : chunk.begin + chunk.numel] = held_of(chunk, update)
            found[chunk.stack] += belongs @ update.square_().sum(1)
        return found

    def move(self, weight: Tensor, update: Tensor, squares: Tensor, lr: float) -> None:
        """Take a step along ``update``, of whose squares ``squares`` are the sums over whole matrices."""
        factor = _factor(squares, self._counts * self._piece.columns, lr)
        for chunk in self._piece.chunks:
            step = self._piece.read(update, chunk) * (factor[chunk.stack] @ self._piece.belongs(chunk))[:, None]
            weight[chunk.begin : chunk.begin + chunk.numel] -= held_of(chunk, step)

    def whole_states(self) -> list[WholeState]:
        """Return the means, which all ranks that hold some of the tensor keep alike."""
        return [WholeState(self.local, ROW_MEANS, self.rows), WholeState(self.local, COLUMN_MEANS, self.columns)]


class Vector:
    """A tensor of one dimension, whose mean squares are kept value by value where the weights are."""

    def __init__(self, piece: Piece, mean_squares: Tensor) -> None:
        """Use the range of ``mean_squares``, flat, that belongs to ``piece``."""
        self.local = piece.local
        self._range = slice(piece.offset, piece.offset + piece.valid_numel)
        self._means = mean_squares[self._range]

    def sums(self, grad: Tensor) -> Tensor:
        """Return nothing: no other rank's values are asked for."""
        return grad.new_empty(0)

    def turn(self, grad: Tensor, sums: Tensor, share: float) -> Tensor:
        """Let the means move by ``share`` towards the squares, and make the gradient the update, in place.

        Return the sum of the squares of the update that this rank holds.
        """
        values = grad[self._range]
        self._means.lerp_(values.square() + EPSILON, share)
        values *= self._means.rsqrt()
        return values.square().sum()

    def move(self, weight: Tensor, update: Tensor, squares: Tensor, lr: float) -> None:
        """Take a step along ``update``, of whose squares ``squares`` is the sum over the whole tensor."""
        (numel,) = self.local.logical.shape
        weight[self._range] -= update[self._range] * _factor(squares, numel, lr)

    def whole_states(self) -> list[WholeState]:
        """Return nothing."""
        return []


def _factor(squares: Tensor, numel: Tensor | int, lr: float) -> Tensor:
    """Return what updates are multiplied by, of whose squares the sums over ``numel`` values are given."""
    return lr / ((squares / numel).sqrt() / HIGHEST_RMS).clamp(min=1.0)


class Adafactor(torch.optim.Optimizer):
    """Adafactor with the learning rate that it is given, and decoupled weight decay."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        """Optimize ``groups``; ``attach`` has to follow before the first step."""
        super().__init__(groups, {})
        self._tensors: dict[Tensor, list[Matrices | Vector]] = {}
        self._over_ranks: SumOverRanks | None = None

    def attach(self, fragments: OptimizerFragments, mesh: Mesh, model: ModelConfig) -> None:
        """Learn which parts of which tensors are optimized, and make room for their means."""
        self._over_ranks = SumOverRanks(mesh, is_cut=not fragments.is_plain)
        for flat, pieces in fragments.pieces().items():
            state = self.state[flat]
            state["step"] = torch.zeros(())
            self._tensors[flat] = []
            for piece in pieces:
                if len(piece.local.logical.shape) > 1:
                    found = MatrixPiece.of(piece, model, flat.device)
                    self._tensors[flat].append(Matrices(found, flat.device))
                else:
                    means = state.setdefault("exp_avg_sq", torch.zeros_like(flat))
                    self._tensors[flat].append(Vector(piece, means.view(-1)))

    def whole_states(self) -> list[WholeState]:
        """Return the means of rows and columns."""
        return [state for tensors in self._tensors.values() for tensor in tensors for state in tensor.whole_states()]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # takes no closure
        """Update all groups; gradients are used up. Collective: every rank calls it, with the same groups.

        Communication: of each group ``SumOverRanks.total`` twice.
        """
        assert closure is None, "the loss is not computed again"
        for group in self.param_groups:
            if group["params"]:
                self._step_group(group, group["params"])

    def _step_group(self, group: dict[str, Any], flats: Sequence[Tensor]) -> None:
        assert self._over_ranks is not None, "attach comes first"
        tensors: list[tuple[Matrices | Vector, Tensor, Tensor]] = []
        for flat in flats:
            assert flat.grad is not None, "a rank without gradient would leave the others waiting"
            self.state[flat]["step"] += 1
            grad = flat.grad.reshape(-1)
            tensors += [(tensor, flat.view(-1), grad) for tensor in self._tensors[flat]]
        share = float(self.state[flats[0]]["step"]) ** -DECAY_EXPONENT
        locals_ = [tensor.local for tensor, _, _ in tensors]
        sums = self._over_ranks.total(locals_, [tensor.sums(grad) for tensor, _, grad in tensors])
        turned = [tensor.turn(grad, found, share) for (tensor, _, grad), found in zip(tensors, sums, strict=True)]
        squares = self._over_ranks.total(locals_, turned)
        for flat in flats:
            flat.mul_(1 - group["lr"] * group["weight_decay"])
        for (tensor, weight, update), found in zip(tensors, squares, strict=True):
            tensor.move(weight, update, found, group["lr"])
