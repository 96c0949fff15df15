"""Weights of a pruned model that are zero stay so while it is trained.

Their gradients are taken away, so that the mean of gradients, the mean of squares and the update are zero too, and
weight decay leaves zero at zero: no mask is kept beside the weights, and none has to be saved.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from gptdist.checkpoint.fragments import OptimizerFragments
from gptdist.checkpoint.manifest import WEIGHT
from gptdist.checkpoint.rank_part import RankPart
from gptdist.errors import CheckpointError, TrainingError
from gptdist.mesh.groups import Mesh, gather_texts
from gptdist.model.parameters import is_hidden_matrix
from gptdist.train.run import Run, TrainState


def hold_zeros(model: nn.Module) -> None:
    """Let no gradient come to the zeros of the linear matrices, whatever values they are given later.

    It is done where the gradient arises, before it is added up over micro batches and ranks: its norm is that of what
    is left.
    """
    for name, parameter in model.named_parameters():
        if is_hidden_matrix(name):
            parameter.register_hook(_without_zeros_of(parameter))


def _without_zeros_of(parameter: nn.Parameter) -> Callable[[Tensor], Tensor]:
    def masked(gradient: Tensor) -> Tensor:
        assert parameter.shape == gradient.shape, "ZeRO-3 has let go of the weight before its gradient is done"
        return gradient.masked_fill(parameter == 0, 0.0)

    return masked


def count_zeros(fragments: OptimizerFragments, mesh: Mesh) -> dict[str, int]:
    """Return how many master weights of each linear matrix are zero, where any are. Collective: every rank calls it.

    Communication: names and counts as text, from all ranks to all.
    """
    mine: Counter[str] = Counter()
    for key, values in RankPart.of(fragments, mesh).values():
        state, _, name = key.partition("/")
        if state == WEIGHT and is_hidden_matrix(name):
            mine[name] += int((values == 0).sum())
    total: Counter[str] = Counter()
    for text in gather_texts(json.dumps(mine)):
        total.update(json.loads(text))
    return {name: total[name] for name in sorted(total) if total[name]}


def zeros_to_hold(fragments: OptimizerFragments, mesh: Mesh, state: TrainState) -> dict[str, int]:
    """Return the zeros that a run begins or goes on with. Collective: every rank calls it.

    Args:
        fragments: what was restored.
        mesh: the ranks.
        state: with the zeros that the checkpoint notes, if it notes any.

    Raises:
        CheckpointError: there are none, or fewer than that, or a run went on without holding them; on every rank.
    """
    if state.step and not state.zeros:
        raise CheckpointError(
            f"training.keep_zeros: the checkpoint of step {state.step} was saved without it, its zeros are gone; "
            f"leave it false, or begin a run with a pruned checkpoint: training.init_from"
        )
    found = count_zeros(fragments, mesh)
    if not found:
        raise CheckpointError(
            "training.keep_zeros: no weight of a linear matrix is zero; begin with a pruned checkpoint: "
            "training.init_from, or set it to false"
        )
    if lost := _lost(found, state.zeros):
        raise CheckpointError(f"training.keep_zeros: {lost} in the checkpoint's notes; use an older checkpoint")
    return found


def zeros_now(run: Run) -> dict[str, int]:
    """Return the zeros that a run holds, for its checkpoint; none where it holds none. Collective: every rank calls it.

    Raises:
        TrainingError: some are gone, on every rank.
    """
    if not run.config.training.keep_zeros:
        return {}
    found = count_zeros(run.fragments, run.mesh)
    if lost := _lost(found, run.state.zeros):
        raise TrainingError(
            f"step {run.state.step}: {lost} when the run began; memory was damaged, or the optimizer moves weights "
            f"without gradient: go on from an older checkpoint"
        )
    return found


def _lost(found: Mapping[str, int], noted: Mapping[str, int]) -> str:
    """Return what is said of the first matrix with fewer zeros than before; nothing where there is none."""
    for name, count in noted.items():
        if found.get(name, 0) < count:
            return f"{name} has {found.get(name, 0)} zeros, {count}"
    return ""
