"""Terms of a distillation on hidden states: layers of the student are to give what layers of the teacher give.

Letters: s sequence, b batch, h the student's hidden size, g the teacher's, t tensor-parallel size.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - the name every torch user knows
from torch import Tensor, nn

from gptdist.config.distillation import HiddenTerm
from gptdist.mesh.groups import Mesh
from gptdist.model.parameters import derived_seed


class LayerOutputs:
    """What some layers of a model gave in its last forward pass, [s, b, h] (sequence parallel: [s / t, b, h])."""

    def __init__(self, model: nn.Module, layers: Sequence[int]) -> None:
        """Look at ``layers`` of ``model`` from now on."""
        self.of: dict[int, Tensor] = {}
        for number in sorted(set(layers)):
            model.decoder.layers[number].register_forward_hook(self._keep(number))  # type: ignore[union-attr,index]

    def _keep(self, number: int) -> Any:
        def keep(_: nn.Module, __: Any, output: tuple[Tensor, Any]) -> None:
            self.of[number] = output[0]

        return keep

    def take(self) -> dict[int, Tensor]:
        """Return them, and let them go."""
        taken, self.of = self.of, {}
        return taken


class HiddenTerms:
    """The sum of all terms, whose gradient goes to the student's layers."""

    def __init__(self, terms: Sequence[HiddenTerm], student: nn.Module, mesh: Mesh, *, widths: tuple[int, int]) -> None:
        """Compare the layers of ``student`` that ``terms`` name.

        Args:
            terms: which layers, and how.
            student: its model on this rank.
            mesh: the ranks.
            widths: hidden sizes of student and teacher.
        """
        self._terms = terms
        self._mesh = mesh
        self._outputs = LayerOutputs(student, [term.student_layer for term in terms])
        self._is_split: bool = student.config.sequence_parallel  # type: ignore[union-attr,assignment]
        self._projection = None if widths[0] == widths[1] else orthonormal(*widths)

    def of(self, labels: Tensor, teacher: Mapping[int, Tensor]) -> Tensor:
        """Return it for ``labels`` [s x b] of the last forward pass, and what the teacher's layers gave.

        The value is the same on every tensor-parallel rank, and each has the gradient of the states that it holds.

        Communication: where sequences are split over tensor-parallel ranks, an all-reduce of one value over them.
        """
        student, total = self._outputs.take(), torch.zeros((), device=labels.device)
        for term in self._terms:
            ours, theirs = student[term.student_layer], teacher[term.teacher_layer]
            total = total + term.weight * (self._distances(term, ours, theirs) * self._live(labels, ours)).sum()
        total = total / labels.numel()
        if not self._is_split:
            return total
        summed = total.detach().clone()
        dist.all_reduce(summed, group=self._mesh.tensor_group)
        return total + (summed - total.detach())

    def _distances(self, term: HiddenTerm, ours: Tensor, theirs: Tensor) -> Tensor:
        ours, theirs = ours.float(), theirs.float()
        if self._projection is not None:
            self._projection = self._projection.to(ours.device)
            ours = ours @ self._projection
        if term.kind == "mse":
            return (ours - theirs).square().mean(-1)
        return 1.0 - F.cosine_similarity(ours, theirs, dim=-1)

    def _live(self, labels: Tensor, states: Tensor) -> Tensor:
        """Return which of the tokens of ``states`` count, [s, b] or [s / t, b]."""
        live = (labels >= 0).view(-1, states.shape[1])
        return live.chunk(self._mesh.layout.tensor_parallel_size)[self._mesh.place.tp_rank] if self._is_split else live


def orthonormal(ours: int, theirs: int) -> Tensor:
    """Return [h, g] with orthonormal rows, or columns where h is larger; depends on the sizes alone."""
    generator = torch.Generator().manual_seed(derived_seed(0, "hidden_projection", ours, theirs))
    drawn = torch.randn(max(ours, theirs), min(ours, theirs), generator=generator, dtype=torch.float64)
    vectors = torch.linalg.qr(drawn)[0].float()
    return vectors if ours >= theirs else vectors.t().contiguous()
