"""Prove from the records of a run that its weights have seen every sample as scheduled; no torch, and no data.

The weights of now have a line of descent: the newest attempt, the attempt whose checkpoint it went on from, and so on
to the beginning. Along it every sample must come once: in a step, or passed over by a rewind that the ledger knows.
What other attempts did after the checkpoint that was gone on from is lost, and repeated.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptdist.checkpoint.find import step_folders
from gptdist.checkpoint.identity import changes
from gptdist.checkpoint.manifest import read_manifest
from gptdist.checkpoint.prove import order_changes
from gptdist.data.attempts import START, Attempt, read_attempts
from gptdist.errors import CheckpointError, GptDistError
from gptdist.telemetry.ledger import LEDGER_NAME, SAVED, LedgerLine, read_checked, read_json_lines
from gptdist.telemetry.metrics import METRICS_NAME

END_EVENTS = ("done", "stopped", "rewind")
"""Events by which an attempt says itself how it ended."""


@dataclass
class AuditedAttempt:
    """One attempt, and what became of its steps."""

    attempt: Attempt
    events: list[LedgerLine]
    start: Mapping[str, Any]
    recorded_step: int
    """Last step that a record or a checkpoint proves."""

    parent: int | None = None
    """Attempt whose checkpoint it went on from."""

    passed_over: range = range(0)
    """Samples between that checkpoint and its first one, by a rewind."""

    kept_step: int | None = None
    """Last step whose result the newest attempt has; none if it has nothing of this one."""

    changed: list[str] = field(default_factory=list)
    """Keys of the config that are others than its parent's."""

    @property
    def number(self) -> int:
        """Number of the attempt."""
        return self.attempt.number

    def events_of(self, kind: str) -> list[LedgerLine]:
        """Return its events of one kind."""
        return [event for event in self.events if event.facts.get("event") == kind]

    @property
    def end(self) -> LedgerLine | None:
        """How it ended, if it could still say so."""
        return next((event for event in reversed(self.events) if event.facts.get("event") in END_EVENTS), None)

    @property
    def lost_steps(self) -> range:
        """Steps that were done for nothing, as far as they are recorded."""
        kept = self.attempt.first_step if self.kept_step is None else self.kept_step
        return range(kept + 1, self.recorded_step + 1)

    @property
    def skips(self) -> list[Mapping[str, Any]]:
        """The skipped steps among those that were kept."""
        kept = -1 if self.kept_step is None else self.kept_step
        return [event.facts for event in self.events_of("skip") if event.facts["step"] <= kept]

    def after(self, step: int) -> int:
        """Return the samples that are consumed after ``step``, by its schedule."""
        return self.attempt.first_sample(step + 1)


@dataclass
class Audit:
    """What the records of a run say."""

    run: Path
    attempts: dict[int, AuditedAttempt] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    line: list[AuditedAttempt] = field(default_factory=list)
    """The line of descent, oldest first."""

    @property
    def consumed_samples(self) -> int:
        """Samples up to the last step that is proven."""
        return self.line[-1].after(self.line[-1].recorded_step) if self.line else 0

    def fail(self, problem: str) -> None:
        """Note a reason why nothing is proven."""
        self.problems.append(problem)


def audit(run: Path) -> Audit:
    """Go over all attempts of the run in folder ``run``.

    Raises:
        CheckpointError: the folder holds no run.
    """
    ledger, folders = run / LEDGER_NAME, step_folders(run / "checkpoints")
    if not ledger.exists() and not folders and not (run / METRICS_NAME).exists():
        raise CheckpointError(f"{run}: holds no ledger, no metrics and no checkpoint; name the folder of a run")
    events, torn, edited = read_checked(ledger)
    found = Audit(run, problems=[*torn, *edited])
    if edited:
        return found  # what it says of the run is worth nothing
    try:
        attempts = read_attempts(run)
    except GptDistError as error:
        found.problems += error.problems
        return found
    by_attempt: dict[int, list[LedgerLine]] = defaultdict(list)
    for event in events:
        by_attempt[event.facts["attempt"]].append(event)
    for attempt in attempts:
        mine = by_attempt[attempt.number]
        start = next((event.facts for event in mine if event.facts.get("event") == START), {})
        found.attempts[attempt.number] = AuditedAttempt(attempt, mine, start, attempt.recorded_step)
    _check_numbers(found, by_attempt)
    _check_folders(found, folders)
    for one in found.attempts.values():
        _check_events(found, one)
    _check_metrics(found)
    for one in found.attempts.values():
        _find_parent(found, one)
    _follow(found)
    return found


def _check_numbers(found: Audit, by_attempt: Mapping[int, list[LedgerLine]]) -> None:
    """Every attempt from 1 on has one start."""
    ledger, newest = found.run / LEDGER_NAME, max(by_attempt, default=0)
    for number in range(1, newest + 1):
        starts = [event for event in by_attempt.get(number, []) if event.facts.get("event") == START]
        if not starts or number not in found.attempts:
            found.fail(f"{ledger}: attempt {number} has no start; its lines were lost or removed")
        for event in starts[1:]:
            found.fail(f"{ledger}:{event.number}: attempt {number} starts once more")


def _check_folders(found: Audit, folders: list[Path]) -> None:
    """Every checkpoint is one that its attempt came to; it also proves that the attempt did."""
    for folder in folders:
        try:
            progress = read_manifest(folder).progress
        except CheckpointError:
            continue  # damaged: 'gptdist checkpoint verify' says so, and no attempt goes on from it
        if progress.proof is None:
            found.fail(f"{folder}: no training step led to it; remove it from the run's folder")
            continue
        one = found.attempts.get(progress.proof.attempt)
        if one is None:
            found.fail(f"{folder}: attempt {progress.proof.attempt} saved it, of which the ledger has no start")
            continue
        if one.end is not None and progress.step > one.end.facts["step"]:
            found.fail(
                f"{found.run / LEDGER_NAME}:{one.end.number}: attempt {one.number} ends with step "
                f"{one.end.facts['step']}, but it saved {folder.name}"
            )
        one.recorded_step = max(one.recorded_step, progress.step)
        _check_position(found, one, progress.step, progress.consumed_samples, str(folder))


def _check_position(found: Audit, one: AuditedAttempt, step: int, consumed: int, where: str) -> None:
    if step < one.attempt.first_step:
        found.fail(f"{where}: attempt {one.number} begins behind step {one.attempt.first_step}, and did step {step}")
    elif consumed != one.after(step):
        found.fail(
            f"{where}: {consumed} samples were consumed at step {step} of attempt {one.number}, by its schedule it is "
            f"{one.after(step)}"
        )


def _check_events(found: Audit, one: AuditedAttempt) -> None:
    """Checkpoints, skipped steps, rewinds and the end stand where the schedule has them."""
    ledger = found.run / LEDGER_NAME
    for event in one.events_of(SAVED):
        _check_position(
            found, one, event.facts["step"], event.facts.get("consumed_samples", -1), f"{ledger}:{event.number}"
        )
    for event in one.events_of("skip"):
        step, first, last = (event.facts[key] for key in ("step", "first_sample", "last_sample"))
        if (first, last + 1) != (one.after(step - 1), one.after(step)):
            found.fail(
                f"{ledger}:{event.number}: skipped step {step} had samples {first} to {last}, by the schedule of "
                f"attempt {one.number} it has {one.after(step - 1)} to {one.after(step) - 1}"
            )
    for event in one.events_of("rewind"):
        _check_rewind(found, one, event)
    if one.end is not None and one.recorded_step > one.end.facts["step"]:
        found.fail(
            f"{ledger}:{one.end.number}: attempt {one.number} ends with step {one.end.facts['step']}, but step "
            f"{one.recorded_step} of it is recorded"
        )


def _check_rewind(found: Audit, one: AuditedAttempt, event: LedgerLine) -> None:
    """The data was passed over up to the last step, or by hand up to the step that is noted, maybe of an older attempt.

    Nothing was where that is the step of the checkpoint, whose attempt may have begun with it.
    """
    step, whose = event.facts.get("past_step", event.facts["step"]), event.facts.get("past_attempt", one.number)
    where = f"{found.run / LEDGER_NAME}:{event.number}"
    if whose not in found.attempts:
        found.fail(f"{where}: passes over data up to step {step} of attempt {whose}, of which the ledger has no start")
        return
    _check_position(found, found.attempts[whose], step, event.facts["last_sample"] + 1, where)


def _check_metrics(found: Audit) -> None:
    """Every logged step has consumed what the schedule says, and belongs to an attempt of the ledger."""
    path, unknown = found.run / METRICS_NAME, set()
    for row in read_json_lines(path):
        if not isinstance(row, dict) or row.get("kind") != "train":
            continue
        one = found.attempts.get(row.get("attempt", 0))
        if one is None:
            unknown.add(row.get("attempt", 0))
        elif "consumed_samples" in row:
            _check_position(found, one, row["step"], row["consumed_samples"], str(path))
    for number in sorted(unknown):
        found.fail(f"{path}: has steps of attempt {number}, of which the ledger has no start")


def _find_parent(found: Audit, one: AuditedAttempt) -> None:
    """Find whose checkpoint an attempt went on from, and compare where the two stand."""
    step, begin = one.attempt.first_step, one.attempt.consumed_samples
    who, number = f"attempt {one.number}", one.start.get("from_attempt")
    if step == 0:
        if begin:
            found.fail(f"{who}: begins with sample {begin} at step 0; samples 0 to {begin - 1} were left out")
        return
    if not isinstance(number, int) or number >= one.number or number not in found.attempts:
        whose = "none that the ledger has" if not isinstance(number, int) else f"attempt {number}, which it lacks"
        found.fail(f"{who}: goes on from step {step}, by the ledger a checkpoint of {whose}")
        return
    parent = found.attempts[number]
    one.parent = number
    one.changed = changes(parent.attempt.config.tree(), one.attempt.config.tree())
    at_checkpoint = parent.after(step)
    rewind = _rewind_to(found, one)
    if rewind is not None and begin == rewind["last_sample"] + 1 and rewind["first_sample"] == at_checkpoint:
        one.passed_over = range(at_checkpoint, begin)
    elif begin > at_checkpoint:
        found.fail(
            f"{who}: goes on at sample {begin} from step {step} of attempt {number}, which ended with sample "
            f"{at_checkpoint - 1}; samples {at_checkpoint} to {begin - 1} were left out"
        )
    elif begin < at_checkpoint:
        found.fail(
            f"{who}: goes on at sample {begin} from step {step} of attempt {number}, which ended with sample "
            f"{at_checkpoint - 1}; samples {begin} to {at_checkpoint - 1} were seen twice"
        )
    _check_saved(found, one, parent)


def _rewind_to(found: Audit, one: AuditedAttempt) -> Mapping[str, Any] | None:
    """Return the rewind that an attempt began with, if the attempt before ended with one to its step."""
    before = found.attempts.get(one.number - 1)
    rewinds = before.events_of("rewind") if before is not None else []
    return rewinds[-1].facts if rewinds and rewinds[-1].facts["to_step"] == one.attempt.first_step else None


def _check_saved(found: Audit, one: AuditedAttempt, parent: AuditedAttempt) -> None:
    """The checkpoint was recorded, unless its attempt was killed before it could; data and order are those of then."""
    step, who = one.attempt.first_step, f"attempt {one.number}"
    saved = [event for event in parent.events_of(SAVED) if event.facts["step"] == step]
    if not saved and parent.end is not None:
        found.fail(f"{who}: goes on from step {step} of attempt {parent.number}, of which no checkpoint is recorded")
    for middle in range(parent.number, one.number):
        for event in found.attempts[middle].events_of("rewind") if middle in found.attempts else []:
            if event.facts["to_step"] < step:
                found.fail(
                    f"{who}: goes on from step {step} of attempt {parent.number}, which attempt {middle} had removed "
                    f"by its rewind to step {event.facts['to_step']}"
                )
    before, now = parent.attempt.data_fingerprints, one.attempt.data_fingerprints
    for name in sorted(before.keys() & now.keys()):
        if before[name] != now[name]:
            found.fail(
                f"{who}: data source '{name}' has content {now[name][:12]}, attempt {parent.number} read "
                f"{before[name][:12]}; the same positions are other samples"
            )
    reasons = order_changes(parent.attempt.config.tree(), one.attempt.config.tree())
    is_other = saved[-1].facts.get("order") != one.start.get("order") if saved else bool(reasons)
    if is_other and not one.passed_over:
        found.fail(
            f"{who}: has another order of samples than attempt {parent.number} "
            f"({'; '.join(reasons) or 'under the same config'}), so windows come twice or never"
        )


def _follow(found: Audit) -> None:
    """Find the line of descent, and what each attempt on it has left to the next."""
    if not found.attempts:
        return
    one: AuditedAttempt | None = found.attempts[max(found.attempts)]
    assert one is not None, "there are attempts"
    kept = one.recorded_step
    while one is not None:
        if kept > max(one.attempt.last_step, one.recorded_step):
            found.fail(f"attempt {one.number}: came to step {one.recorded_step}, and step {kept} was gone on from")
        one.kept_step, one.recorded_step = kept, max(kept, one.recorded_step)
        found.line.insert(0, one)
        kept = one.attempt.first_step
        one = found.attempts[one.parent] if one.parent is not None else None
