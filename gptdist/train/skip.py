"""A step whose update is refused: decided before the update, told, written to the ledger, and its batch dumped."""

import logging
import math
from collections.abc import Sequence

from gptdist.telemetry.ledger import Ledger
from gptdist.train.guards import Refusal, Verdict
from gptdist.train.run import Run, StepResult
from gptdist.train.sample_losses import sample_losses
from gptdist.train.spike_dump import dump_batch

logger = logging.getLogger(__name__)

SKIP = "skip"


def guarded_update(run: Run, loss: float) -> Verdict:
    """Update the weights unless ``loss`` or the gradient's norm forbid it. Collective: every rank calls it.

    Loss and norm are the same on every rank, and so is what the guards remember: all ranks decide alike.
    """
    guards, config = run.state.guards, run.config.guards
    found: list[Verdict] = []

    def may_update(grad_norm: float | None) -> bool:
        found.append(guards.judge(config, loss, grad_norm))
        return found[-1].refusal is None

    run.engine.update(may_update)
    (verdict,) = found
    guards.advance(config, run.state.step + 1, verdict)
    return verdict


def record_skip(run: Run, result: StepResult) -> None:
    """Tell of the last step if it was skipped, and dump its batch; rank 0 writes. Collective: every rank calls it."""
    if result.refusal is None:
        return
    first = run.state.consumed_samples - result.samples
    with run.clock.part("evaluation"):
        losses = sample_losses(run, first, result.samples)
    if run.ledger is not None:
        _tell(run, run.ledger, result.refusal, first, losses)


def where(run: Run, result: StepResult) -> str:
    """Return which step was skipped why, after how many others, as the beginning of an error's text."""
    state, guards = run.state, run.config.guards
    return (
        f"step {state.step}: {result.refusal}, on samples {state.consumed_samples - result.samples} to "
        f"{state.consumed_samples - 1}, and {len(state.guards.skipped_steps)} of the last {guards.window_steps} steps "
        f"were skipped, {guards.max_skips} may be"
    )


def _tell(run: Run, ledger: Ledger, refusal: Refusal, first: int, losses: Sequence[float | None]) -> None:
    state, last = run.state, first + len(losses) - 1
    logger.warning(
        "step %d | skipped: %s, on samples %d to %d; %d of the last %d steps are skipped, %d may be",
        state.step,
        refusal,
        first,
        last,
        len(state.guards.skipped_steps),
        run.config.guards.window_steps,
        run.config.guards.max_skips,
    )
    path = dump_batch(run, range(first, last + 1), losses, attempt=ledger.attempt)
    ledger.write(
        SKIP,
        step=state.step,
        first_sample=first,
        last_sample=last,
        what=refusal.what,
        value=refusal.value if math.isfinite(refusal.value) else str(refusal.value),
        mean=refusal.mean,
        z_score=refusal.z_score,
        batch=str(path.relative_to(run.config.folder)),
    )
