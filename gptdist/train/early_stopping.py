"""End a run whose validation loss no longer falls.

What was lowest, and how many evaluations ago, is in every checkpoint: a resumed run ends where the whole one would.
Evaluations at multiples of ``intervals.eval_steps`` count; the one after the last step is not one that a longer run
would have made.
"""

import hashlib
import json
import logging
import math
from collections.abc import Sequence

from gptdist.checkpoint.manifest import LowestLoss
from gptdist.data.sources import ValidationSource
from gptdist.mesh.groups import max_over_ranks
from gptdist.train.run import Run

logger = logging.getLogger(__name__)


def note_evaluation(run: Run) -> bool:
    """Count the evaluation that was just made; return whether it ends the run. Collective: every rank calls it."""
    state, stopping = run.state, run.config.training.early_stopping
    loss, windows = state.validation_loss, windows_digest(run.validation, run.config.data.validation_set)
    assert loss is not None, "an evaluation was made"
    before = state.lowest
    if before is not None and before.windows != windows:
        logger.info("validation_loss is of other windows than before: the lowest one is looked for anew")
        before = None
    known = math.inf if before is None or before.loss is None else before.loss
    if loss < known - (0.0 if stopping is None else stopping.min_delta):
        state.lowest = LowestLoss(windows=windows, loss=loss, step=state.step)
    else:  # a loss that is not finite is no new lowest one either
        since = 1 if before is None else before.evaluations_since + 1
        step = None if before is None else before.step
        state.lowest = LowestLoss(
            windows=windows, loss=None if before is None else before.loss, step=step, evaluations_since=since
        )
    return has_ended(run)


def has_ended(run: Run) -> bool:
    """Return whether patience is used up, as rank 0 sees it. Collective: every rank calls it."""
    stopping, lowest = run.config.training.early_stopping, run.state.lowest
    if stopping is None:
        return False
    is_over = (
        lowest is not None
        and lowest.evaluations_since >= stopping.patience_evaluations
        and lowest.windows == windows_digest(run.validation, run.config.data.validation_set)
    )
    return bool(max_over_ranks(int(is_over and run.mesh.is_lead)))


def tell_end(run: Run, *, now: bool) -> None:
    """Say why the run trains no further; ``now``: it has just come to this, and the ledger notes it."""
    stopping, lowest, step = run.config.training.early_stopping, run.state.lowest, run.state.step
    assert stopping is not None, "the run has an end of this kind"
    assert lowest is not None, "evaluations were counted"
    fact = (
        f"validation_loss was lowest at step {lowest.step} ({lowest.loss}), {lowest.evaluations_since} evaluations ago"
    )
    if run.ledger is not None and now:
        run.ledger.write(
            "early_stop",
            step=step,
            lowest_loss=lowest.loss,
            lowest_step=lowest.step,
            evaluations_since=lowest.evaluations_since,
        )
    logger.info(
        "early stopping at step %d: %s; raise training.early_stopping.patience_evaluations above %d to go on",
        step,
        fact,
        stopping.patience_evaluations if now else lowest.evaluations_since,
    )


def windows_digest(sources: Sequence[ValidationSource], validation_set: str | None) -> str:
    """Return what the validation loss's windows are known by; equal only if the losses can be compared."""
    measured = [
        (one.name, one.weight, one.dataset.manifest.fingerprint(), one.dataset.split, one.first_tokens)
        for one in sources
        if (one.weight > 0.0 if validation_set is None else one.name == validation_set)
    ]
    return hashlib.sha256(json.dumps(measured).encode()).hexdigest()[:16]
