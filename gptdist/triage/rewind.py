"""Back to a checkpoint by hand, past data that is not to be seen again: what a run does itself after too many skips.

It leaves what the run would have left: the checkpoint anew, with another position in the data, a rewind in the ledger,
and an attempt of no steps that has it. No training is done, and no tensor is read but to verify its file.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gptdist.checkpoint.audit import Audit, AuditedAttempt, audit
from gptdist.checkpoint.find import LATEST_NAME, step_folder_name, step_folders, step_of
from gptdist.checkpoint.manifest import Manifest, read_manifest
from gptdist.checkpoint.proof import ledger_facts, order_digest
from gptdist.checkpoint.prove import make_proof, order_changes, source_positions
from gptdist.checkpoint.prune import delete_checkpoint
from gptdist.checkpoint.seals import Protection, write_manifest
from gptdist.checkpoint.verify import verify
from gptdist.data.attempts import START, Attempt, start_facts
from gptdist.data.plan import check_epochs
from gptdist.data.sources import TrainingData
from gptdist.data.trace import open_traced_data
from gptdist.durable import swap_in, sync_file, write_whole
from gptdist.errors import CheckpointError
from gptdist.mesh.layout import Layout
from gptdist.telemetry.ledger import SAVED, Ledger
from gptdist.train.lock import lock_folder

_PREFIX = ".partial-"
"""Begins the name of a folder that is being written; nothing takes it for a checkpoint."""


@dataclass(frozen=True)
class Rewind:
    """What is going to happen."""

    run: Path
    checkpoint: Path
    manifest: Manifest
    newest: Attempt
    """The attempt that is left."""

    last_step: int
    """The last step that it is known to have done."""

    past_step: int
    past_attempt: int
    """The data is passed over up to this step of this attempt, on the way that the weights of now have come."""

    consumed_samples: int
    """With which the run goes on."""

    removed: tuple[Path, ...]
    """Checkpoints of later steps."""

    @property
    def passed_over(self) -> range:
        """The samples that the weights will not have seen."""
        return range(self.manifest.progress.consumed_samples, self.consumed_samples)

    def lines(self) -> list[str]:
        """Return it in words."""
        passed = self.passed_over
        data = f"passes over samples {passed[0]} to {passed[-1]}" if passed else "reads the same data again"
        return [
            f"{self.run}: goes back from step {self.last_step} to {self.checkpoint.name}, and {data}",
            *(f"deletes {folder}" for folder in self.removed),
        ]


def plan_rewind(run: Path, to_step: int, past_step: int | None) -> Rewind:
    """Return what a rewind to ``to_step`` would do; reads and verifies the checkpoint.

    Args:
        run: folder of the run.
        to_step: step of the checkpoint to go back to.
        past_step: the data up to and with this step is passed over; default: none is.

    Raises:
        CheckpointError: the records of the run prove nothing, there is no such whole checkpoint, or no such step.
    """
    found = audit(run)
    if found.problems:
        raise CheckpointError(
            f"{found.problems[0]}; a rewind needs records that 'gptdist audit' passes, mend them first"
        )
    newest = found.line[-1]
    folder = run / "checkpoints" / step_folder_name(to_step)
    config = newest.attempt.config
    problems = verify(folder, Protection.of(config.checkpoints.protection).trusted_key)
    if problems:
        known = ", ".join(str(step_of(one)) for one in step_folders(run / "checkpoints")) or "none"
        raise CheckpointError(f"{problems[0]}; go back to another one: there are {known}")
    manifest = read_manifest(folder)
    past, consumed = _attempt_of(found, folder, manifest), manifest.progress.consumed_samples
    if past_step is not None:
        if not to_step <= past_step <= newest.recorded_step:
            raise CheckpointError(
                f"--past {past_step}: the run has come to step {newest.recorded_step}, and goes back to {to_step}; "
                f"name a step from {to_step} to {newest.recorded_step}"
            )
        if past_step > to_step:
            past = next(one for one in reversed(found.line) if one.attempt.first_step < past_step)
        consumed = past.after(past_step)
    if config.checkpoints.remote is not None and consumed < found.consumed_samples:
        raise CheckpointError(
            f"{config.checkpoints.remote.url}: holds copies of later steps, which a resume would fetch again; pass "
            f"over all that was read (--past {newest.recorded_step})"
        )
    return Rewind(
        run=run,
        checkpoint=folder,
        manifest=manifest,
        newest=newest.attempt,
        last_step=newest.recorded_step,
        past_step=to_step if past_step is None else past_step,
        past_attempt=past.number,
        consumed_samples=consumed,
        removed=tuple(one for one in step_folders(run / "checkpoints") if step_of(one) > to_step),
    )


def _attempt_of(found: Audit, folder: Path, manifest: Manifest) -> AuditedAttempt:
    """Return the attempt that saved a checkpoint; refuse one that the weights of now do not come from.

    So is one whose record is lost.
    """
    proof, step, order = manifest.progress.proof, manifest.step, found.line[-1].attempt.config.tree()
    own = next((one for one in found.line if proof is not None and one.number == proof.attempt), None)
    if own is None or own.kept_step is None or own.kept_step < step:
        raise CheckpointError(f"{folder}: the weights of now do not come from it; go back to another one")
    if not any(event.facts["step"] == step for event in own.events_of(SAVED)):
        raise CheckpointError(f"{folder}: the ledger has no record of it; go back to an older one")
    changed = order_changes(manifest.config, order)
    if changed:
        raise CheckpointError(
            f"{folder}: the order of samples has changed since ({'; '.join(changed)}); go back to a later one"
        )
    return own


def rewind(plan: Rewind) -> None:
    """Go back; the next launch of the run goes on from there.

    Raises:
        ConfigError: the rest of the run would read a source more often than its ``max_epochs``.
        CheckpointError: a disk refuses.
        DataError: the data is gone, or another one by now.
        TrainingError: the run is training.
    """
    config = plan.newest.config
    with lock_folder(plan.run):
        data = open_traced_data(config, plan.newest.data_fingerprints)
        epochs = check_epochs(config, data.order, step=plan.manifest.step, consumed_samples=plan.consumed_samples)
        shares = {source.name: source.share for source in epochs.sources}
        ledger = Ledger(plan.run)
        manifest = _moved(plan, data, ledger.attempt)
        with _written(plan.checkpoint, manifest, Protection.of(config.checkpoints.protection)) as finished:
            for folder in plan.removed:
                delete_checkpoint(folder, even_if_read=True)
            _note(plan, ledger, data, manifest, shares)
            swap_in(finished, plan.checkpoint)
        write_whole(plan.checkpoint.parent / LATEST_NAME, plan.checkpoint.name.encode())
        progress = manifest.progress
        ledger.write(SAVED, step=progress.step, **ledger_facts(progress.proof))
        ledger.write("stopped", step=progress.step, consumed_samples=progress.consumed_samples, reason="rewind")


def _moved(plan: Rewind, data: TrainingData, attempt: int) -> Manifest:
    """Return the checkpoint's manifest at the new position, as saved by ``attempt``."""
    before, config = plan.manifest.progress, plan.newest.config
    proof = make_proof(
        data,
        attempt=attempt,
        consumed_samples=plan.consumed_samples,
        samples=config.batch_sizes.at(plan.consumed_samples),
        steps=[] if before.proof is None else list(before.proof.steps),
    )
    changed = {
        "consumed_samples": plan.consumed_samples,
        "consumed_tokens": plan.consumed_samples * config.model.seq_length,
        "guards": before.guards.model_copy(update={"skipped_steps": ()}),
        "proof": proof,
    }
    return plan.manifest.model_copy(update={"progress": before.model_copy(update=changed)})


@contextmanager
def _written(checkpoint: Path, manifest: Manifest, protection: Protection) -> Iterator[Path]:
    """Have the checkpoint beside itself, with another manifest and the same files, which take no room of their own."""
    folder = checkpoint.with_name(f"{_PREFIX}{checkpoint.name}-rewind")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for entry in manifest.files:
            try:
                os.link(checkpoint / entry.name, folder / entry.name)
            except OSError:  # a file system without links
                shutil.copyfile(checkpoint / entry.name, folder / entry.name)
                sync_file(folder / entry.name)
        write_manifest(folder, manifest, protection)
        yield folder
    except OSError as error:
        raise CheckpointError(f"{checkpoint}: cannot be written anew ({error}); mend the disk, and try again") from None
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)


def _note(plan: Rewind, ledger: Ledger, data: TrainingData, manifest: Manifest, shares: dict[str, float]) -> None:
    """Write the rewind into the ledger, as the end of the attempt that is left, and the start of the next one."""
    step, passed, config = plan.manifest.step, plan.passed_over, plan.newest.config
    next_attempt, ledger.attempt = ledger.attempt, plan.newest.number
    ledger.write(
        "rewind",
        step=plan.last_step,
        to_step=step,
        first_sample=passed.start,
        last_sample=passed.stop - 1,
        rewinds=plan.manifest.progress.guards.rewinds,
        by="hand",
        past_step=plan.past_step,
        past_attempt=plan.past_attempt,
    )
    ledger.attempt = next_attempt
    facts = start_facts(
        config.tree(),
        plan.newest.data_fingerprints,
        step=step,
        consumed_samples=plan.consumed_samples,
        layout=Layout.of(config.parallel, plan.newest.world_size),
        shares=shares,
    )
    proof = plan.manifest.progress.proof
    order = order_digest(source_positions(data.order, plan.consumed_samples))
    ledger.write(START, **facts, from_attempt=None if proof is None else proof.attempt, order=order, changed=[])
