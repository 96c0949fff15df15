"""The last good checkpoint before trouble, and what goes back to it; no torch."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from gptdist.checkpoint.audit import audit
from gptdist.checkpoint.find import newest_whole
from gptdist.checkpoint.manifest import read_manifest
from gptdist.checkpoint.seals import Protection
from gptdist.data.attempts import Attempt
from gptdist.errors import GptDistError
from gptdist.triage.timeline import Timeline


@dataclass(frozen=True)
class WayBack:
    """Where to go back to, and how."""

    checkpoint: Path | None
    """The newest whole one from before the trouble: every file was read and its hash compared."""

    step: int | None
    saved_by: int | None
    """Attempt that saved it."""

    damaged: tuple[str, ...]
    """Newer ones from before the trouble that are not whole."""

    verdict: str
    """Whether the run has to go back."""

    commands: tuple[str, ...]
    """What goes back and passes the data over; none where nothing has to."""

    problems: tuple[str, ...] = ()
    """Why there is no way back."""


def find_way_back(run: Path, attempt: Attempt, timeline: Timeline) -> WayBack:
    """Find the newest whole checkpoint from before the odd steps, and say how to go back to it; reads all of it."""
    before = timeline.first_odd_step
    try:
        trusted = Protection.of(attempt.config.checkpoints.protection).trusted_key
        folder, damaged = newest_whole(run / "checkpoints", before_step=before, trusted=trusted)
    except GptDistError as error:
        return WayBack(None, None, None, (), _verdict(run, timeline) or "", (), error.problems)
    verdict = _verdict(run, timeline)
    if folder is None:
        problem = f"{run / 'checkpoints'}: holds no checkpoint of a step before {before}; lower intervals.save_steps"
        return WayBack(None, None, None, tuple(damaged), verdict or "", (), (problem,))
    progress = read_manifest(folder).progress
    commands: tuple[str, ...] = ()
    if verdict is None:
        passed = attempt.first_sample(timeline.step + 1) - progress.consumed_samples
        verdict = (
            f"the weights of now have learnt from step {timeline.step}; stop the run, and to go back to step "
            f"{progress.step} and pass over the {passed} samples from there to step {timeline.step}:"
        )
        commands = (
            f"gptdist checkpoint rewind {shlex.quote(str(run))} --to {progress.step} --past {timeline.step}",
            f"gptdist launch local {shlex.quote(str(run / 'config.yaml'))}",
        )
    saved_by = None if progress.proof is None else progress.proof.attempt
    return WayBack(folder, progress.step, saved_by, tuple(damaged), verdict, commands)


def _verdict(run: Path, timeline: Timeline) -> str | None:
    """Return why nothing has to go back; None where the weights of now are the worse for the step."""
    if timeline.is_skipped:
        return f"no need to go back: step {timeline.step} was skipped, the weights have not learnt from it"
    if not timeline.is_recorded:
        return f"step {timeline.step} is behind the last record: nothing says that the weights have learnt from it"
    try:
        mine = audit(run).attempts.get(timeline.attempt)
    except GptDistError:
        return None
    if mine is not None and (mine.kept_step is None or mine.kept_step < timeline.step):
        return (
            f"no need to go back: step {timeline.step} of attempt {timeline.attempt} was undone, the weights of now "
            f"have not learnt from it"
        )
    return None
