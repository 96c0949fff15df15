"""What an audit has found, as a table of attempts and one verdict."""

from collections.abc import Mapping, Sequence
from typing import Any

from gptdist.checkpoint.audit import END_EVENTS, Audit, AuditedAttempt
from gptdist.telemetry.ledger import ENDED

_SHOWN_KEYS = (
    "parallel.",
    "launch.",
    "memory.",
    "batch.",
    "model.",
    "optimizer.",
    "schedule.",
    "training.",
    "data.",
    "seed",
)
"""Sections whose changes are shown; those of intervals, names and folders change no number."""

_SHOWN_PROBLEMS = 20


def report(found: Audit) -> list[str]:
    """Return the lines to show, the verdict last."""
    lines = [f"{'attempt':>7}  {'steps':<15} {'samples':<19} {'goes on from':<22} {'lost steps':<12} end"]
    for one in found.attempts.values():
        lines.append(
            f"{one.number:>7}  {_steps(one):<15} {_samples(one):<19} {_origin(one):<22} {_span(one.lost_steps):<12} "
            f"{_end(one, is_last=one.number == max(found.attempts))}"
        )
        if one.passed_over:
            lines.append(f"{'':>9}passed over samples {_span(one.passed_over)}, by the rewind before")
        if one.skips:
            steps = ", ".join(str(skip["step"]) for skip in one.skips[:8])
            lines.append(f"{'':>9}skipped steps: {steps}{' …' if len(one.skips) > 8 else ''}")
        lines += [f"{'':>9}changed: {line}" for line in one.changed if line.startswith(_SHOWN_KEYS)]
    hidden = len(found.problems) - _SHOWN_PROBLEMS
    lines += [f"problem: {problem}" for problem in found.problems[:_SHOWN_PROBLEMS]]
    return [*lines, *([f"and {hidden} problems more"] if hidden > 0 else []), verdict(found)]


def audit_tree(found: Audit) -> dict[str, Any]:
    """Return the same as plain data; first and last of steps and samples, null where there are none."""
    return {
        "run": str(found.run),
        "passed": not found.problems,
        "verdict": verdict(found),
        "consumed_samples": found.consumed_samples if found.line else None,
        "attempts": [_attempt_tree(one) for one in found.attempts.values()],
        "problems": found.problems,
    }


def _attempt_tree(one: AuditedAttempt) -> dict[str, Any]:
    return {
        "attempt": one.number,
        "steps": _ends(range(one.attempt.first_step + 1, one.recorded_step + 1)),
        "samples": _ends(range(one.attempt.consumed_samples, one.after(one.recorded_step))),
        "from_step": one.attempt.first_step,
        "from_attempt": one.parent,
        "lost_steps": _ends(one.lost_steps),
        "passed_over_samples": _ends(one.passed_over),
        "skipped_steps": [skip["step"] for skip in one.skips],
        "changed": one.changed,
    }


def _ends(numbers: range) -> list[int] | None:
    return [numbers[0], numbers[-1]] if numbers else None


def verdict(found: Audit) -> str:
    """Return what is proven, or that it is not."""
    if found.problems:
        count = len(found.problems)
        return f"FAIL  {count} problem{'s' if count > 1 else ''}, the first: {found.problems[0]}"
    last = found.line[-1]
    skipped = [skip for one in found.line for skip in one.skips]
    skipped_samples = sum(skip["last_sample"] + 1 - skip["first_sample"] for skip in skipped)
    passed_over = sum(len(one.passed_over) for one in found.line)
    rewinds = sum(bool(one.passed_over) for one in found.line)
    in_steps = found.consumed_samples - passed_over - skipped_samples
    return (
        f"PASS  {found.consumed_samples} samples up to step {last.recorded_step}: {in_steps} in steps that were taken, "
        f"{skipped_samples} in {len(skipped)} skipped steps, {passed_over} passed over by {rewinds} rewinds; "
        f"none twice, none left out"
    )


def _steps(one: AuditedAttempt) -> str:
    return _span(range(one.attempt.first_step + 1, one.recorded_step + 1))


def _samples(one: AuditedAttempt) -> str:
    return _span(range(one.attempt.consumed_samples, one.after(one.recorded_step)))


def _span(numbers: range) -> str:
    if not numbers:
        return "none"
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"


def _origin(one: AuditedAttempt) -> str:
    if one.attempt.first_step == 0:
        return "the beginning"
    return f"step {one.attempt.first_step}" + (f" of attempt {one.parent}" if one.parent is not None else "")


def _end(one: AuditedAttempt, *, is_last: bool) -> str:
    return end_text([event.facts for event in one.events]) or ("runs, or was killed" if is_last else "killed or failed")


def end_text(events: Sequence[Mapping[str, Any]]) -> str | None:
    """Return how an attempt with these events ended; none if nothing says so."""
    by_name = {str(event.get("event")): event for event in events}
    end = next((event for event in reversed(events) if event.get("event") in END_EVENTS), None)
    if end is None:
        told = by_name.get(ENDED)
        if told is None:
            return None
        who = told.get("node") if told.get("rank") is None else f"rank {told['rank']} on {told.get('node')}"
        return f"{told.get('reason')}: {who}"
    if end["event"] == "rewind":
        return f"rewind from step {end.get('step')} to {end.get('to_step')}"
    if "early_stop" in by_name:
        return "done, stopped early"
    by = f" ({end['reason']})" if "reason" in end else ""
    return {"done": "done", "stopped": f"stopped on request{by}"}[end["event"]]
