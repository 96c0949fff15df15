"""Back to a checkpoint from before the trouble, in place, and on with the data behind it."""

from functools import partial

from gptdist.checkpoint.find import newest_whole, step_folders, step_of
from gptdist.checkpoint.prune import delete_checkpoint
from gptdist.checkpoint.seals import Protection
from gptdist.data.plan import check_epochs
from gptdist.errors import TrainingError
from gptdist.train.build import record_start
from gptdist.train.restore import load_agreed
from gptdist.train.run import Run, StepResult, TrainState
from gptdist.train.skip import where
from gptdist.train.spike_dump import SPIKES_FOLDER

REWIND = "rewind"


def rewind_if_needed(run: Run, result: StepResult) -> bool:
    """Go back if too many steps were skipped, and return whether it was done. Collective: every rank calls it.

    The newest whole checkpoint from before the first skipped step is put in. ``consumed_samples`` stays: what lies
    between the checkpoint and here is passed over. Newer checkpoints are removed, or a resume would take them.

    Raises:
        TrainingError: there is no such checkpoint, or the run went back often enough; on every rank.
        CheckpointError: the checkpoint cannot be read, on every rank.
        ConfigError: the rest of the run would read a source more often than its ``max_epochs``, on every rank.
    """
    state, guards = run.state, run.config.guards
    if not state.guards.is_too_much(guards):
        return False
    with run.clock.part("checkpoint"):
        run.saver.settle()
    if state.guards.rewinds >= guards.max_rewinds:
        raise TrainingError(
            f"{where(run, result)}; the run went back to a checkpoint {state.guards.rewinds} times, "
            f"guards.max_rewinds allows {guards.max_rewinds}; look at {run.config.folder / SPIKES_FOLDER}, lower "
            f"optimizer.lr or raise guards.max_z_score; the same command resumes from the newest checkpoint"
        )
    first_skipped, left = state.guards.skipped_steps[0], state.step
    checkpoints = run.config.checkpoints_folder
    if run.keeper is not None:
        run.keeper.settle()
    manifest = load_agreed(partial(_newest_before, run, first_skipped), run.fragments, run.mesh)
    if manifest is None:
        raise TrainingError(
            f"{where(run, result)}; {checkpoints} has no checkpoint from before step {first_skipped} to go back to; "
            f"lower intervals.save_steps or optimizer.lr, or raise guards.max_skips"
        )
    run.engine.stage.share_embedding()
    before, passed_over = TrainState.of(manifest.progress), manifest.progress.consumed_samples
    before.consumed_samples = state.consumed_samples
    before.guards.rewinds, before.guards.skipped_steps = state.guards.rewinds + 1, []
    plan = check_epochs(run.config, run.data.order, step=before.step, consumed_samples=before.consumed_samples)
    vars(state).update(vars(before))
    if run.ledger is None or run.metrics is None:
        return True
    for folder in step_folders(checkpoints):
        if step_of(folder) > state.step:
            delete_checkpoint(folder, even_if_read=True)
    if run.keeper is not None:
        run.keeper.after_rewind(state.step)
    run.ledger.write(
        REWIND,
        step=left,
        to_step=state.step,
        first_sample=passed_over,
        last_sample=state.consumed_samples - 1,
        rewinds=state.guards.rewinds,
    )
    run.ledger.attempt += 1
    record_start(run.ledger, run.identity, run.mesh, state, plan=plan, order=run.data.order)
    run.metrics.begin_attempt(run.ledger.attempt, state.step)
    return True


def _newest_before(run: Run, step: int) -> str | None:
    folder, _ = newest_whole(
        run.config.checkpoints_folder,
        before_step=step,
        trusted=Protection.of(run.config.checkpoints.protection).trusted_key,
    )
    return None if folder is None else str(folder)
