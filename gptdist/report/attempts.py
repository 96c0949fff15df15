"""The attempts of a run over time, from its ledger: when each began and ended, how, and what happened in between."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gptdist.checkpoint.audit import END_EVENTS
from gptdist.checkpoint.audit_report import end_text
from gptdist.checkpoint.identity import changes
from gptdist.data.attempts import START
from gptdist.report.columns import Table
from gptdist.telemetry.heartbeat import node_name
from gptdist.telemetry.ledger import ENDED, LEDGER_NAME, SAVED, read_checked

FRESH_SECONDS = 300.0
"""A run on another machine, whose lock is not seen here, counts as running if it wrote within this time."""

MOST_MARKS = 1000
"""Of one kind on a page; of more than these the newest."""

MARKS = ("skip", "rewind", SAVED, "checkpoint_failed", "early_stop")


@dataclass
class Ledger:
    """What the ledger of a run says."""

    events: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Lines that are torn, or not as they were written."""

    @property
    def by_attempt(self) -> dict[int, list[dict[str, Any]]]:
        """Events by the number of their attempt."""
        found: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for event in self.events:
            found[event["attempt"]].append(event)
        return dict(sorted(found.items()))

    @property
    def starts(self) -> list[dict[str, Any]]:
        """Starts of attempts, oldest first."""
        return [event for event in self.events if event.get("event") == START and isinstance(event.get("step"), int)]

    @property
    def first_steps(self) -> dict[int, int]:
        """Steps done before each attempt."""
        return {start["attempt"]: start["step"] for start in self.starts}


def read_ledger(run: Path) -> Ledger:
    """Return what a run's ledger says; nothing if there is none."""
    events, torn, edited = read_checked(run / LEDGER_NAME)
    return Ledger([event.facts for event in events], [*torn, *edited])


def attempts_of(ledger: Ledger, train: Table, *, is_running: bool, now: float) -> list[dict[str, Any]]:
    """Return a run's attempts, oldest first; times are seconds since 1970."""
    found: list[dict[str, Any]] = []
    by_attempt, first_steps = ledger.by_attempt, ledger.first_steps
    starts = {start["attempt"]: start for start in ledger.starts}
    attempt, step = train.column("attempt"), train.column("step")
    seconds = _seconds(train)
    for number, events in by_attempt.items():
        mine, start = attempt == number, starts.get(number, {})
        first, is_last = first_steps.get(number, 0), number == max(by_attempt)
        steps = [one["step"] for one in events if isinstance(one.get("step"), int) and one.get("event") in _OWN_STEPS]
        last = int(max([first, *steps, *step[mine]]))
        kept = min([last, *(other for later, other in first_steps.items() if later > number)])
        begin, heard = float(events[0].get("time", 0.0)), float(events[-1].get("time", 0.0))
        end = max(heard, begin + float(seconds[mine].sum()))
        how, still_runs = end_text(events), False
        if how is None:
            still_runs = is_last and is_running
            how = "runs" if still_runs else "killed or failed"
        told = next((one for one in events if one.get("event") == ENDED), {})
        found.append(
            {
                "number": number,
                "first_step": first,
                "last_step": last,
                "lost_steps": max(0, last - max(first, kept)),
                "begin": begin,
                "end": max(now, end) if still_runs else end,
                "is_end_known": not still_runs and end_text(events) is not None,
                "how": how,
                "kind": "runs" if still_runs else _kind(events),
                "text": str(told.get("text", "")),
                "from_attempt": start.get("from_attempt"),
                "layout": str(start.get("layout", "")),
                "hosts": list(start.get("hosts", [])),
                "changed": _changed(starts, start),
            }
        )
    return found


_OWN_STEPS = {"done", "stopped", "rewind", "skip", SAVED}
"""Events whose ``step`` is one that the attempt did."""


def _kind(events: Sequence[Mapping[str, Any]]) -> str:
    end = next((one["event"] for one in reversed(events) if one.get("event") in END_EVENTS), None)
    return str(end) if end is not None else "failed"


def _changed(starts: Mapping[int, Mapping[str, Any]], start: Mapping[str, Any]) -> list[str]:
    """Return the keys of the config that are others than in the attempt whose checkpoint was gone on from."""
    parent = starts.get(start.get("from_attempt") or 0, {})
    was, now = parent.get("config"), start.get("config")
    return changes(was, now) if isinstance(was, dict) and isinstance(now, dict) else []


def _seconds(train: Table) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the seconds that each line stands for: steps since the line before, evaluation, checkpoint."""
    if not train.num_rows:
        return np.empty(0)
    step, attempt = train.column("step"), train.column("attempt")
    since = np.diff(step, prepend=0.0)
    first = np.flatnonzero(np.diff(attempt, prepend=np.nan) != 0)  # nothing says how many steps a first line is of
    since[first] = 1.0
    each = np.nan_to_num(train.column("step_seconds")) * np.clip(since, 0.0, None)
    between = np.nan_to_num(train.column("evaluation_seconds")) + np.nan_to_num(train.column("checkpoint_seconds"))
    return np.asarray(each + between)


def marks_of(ledger: Ledger, run: str) -> list[dict[str, Any]]:
    """Return what happened within attempts: skipped steps, rewinds, checkpoints, and those that failed."""
    found = []
    for name in MARKS:
        events = [one for one in ledger.events if one.get("event") == name and isinstance(one.get("step"), int)]
        for one in events[-MOST_MARKS:]:
            mark = {"kind": name, "attempt": one["attempt"], "step": one["step"], "time": float(one.get("time", 0.0))}
            mark["text"] = _mark_text(name, one)
            if name == "skip":
                mark |= {"command": triage_command(run, one["step"]), "batch": str(one.get("batch", ""))}
            found.append(mark)
    return found


def triage_command(run: str, step: int) -> str:
    """Return the command that looks into a step."""
    return f"gptdist triage {run} --step {step}"


def _mark_text(name: str, event: Mapping[str, Any]) -> str:
    match name:
        case "skip":
            reason = f"{event.get('what')} {_short(event.get('value'))}"
            if event.get("z_score") is not None:
                reason += f", {_short(event['z_score'])} standard deviations above {_short(event.get('mean'))}"
            return f"skipped: {reason}; samples {event.get('first_sample')} to {event.get('last_sample')}"
        case "rewind":
            passed = f"samples {event.get('first_sample')} to {event.get('last_sample')} are passed over"
            return f"back to step {event.get('to_step')}; {passed}"
        case "checkpoint_failed":
            return f"checkpoint failed: {event.get('reason')}"
        case "early_stop":
            return f"stopped early: validation loss was lowest at step {event.get('lowest_step')}"
        case _:
            return f"checkpoint, {event.get('bytes', 0):,} bytes"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def is_training(run: Path, ledger: Ledger, newest_write: float, now: float | None = None) -> bool:
    """Return whether a job is at work in a run's folder; nothing is locked for it.

    A job on this machine holds the folder's lock. Of one elsewhere only what it writes is seen.
    """
    now = time.time() if now is None else now
    if _is_locked(run / ".lock"):
        return True
    events = list(ledger.by_attempt.values())
    if not events or any(one.get("event") in {*END_EVENTS, ENDED} for one in events[-1]):
        return False
    hosts = ledger.starts[-1].get("hosts", []) if ledger.starts else []
    is_here = bool(hosts) and node_name() in hosts
    return not is_here and now - newest_write < FRESH_SECONDS


def _is_locked(path: Path) -> bool:
    """Return whether a process of this machine holds a lock on a file, by the kernel's list of them."""
    try:
        number = path.stat().st_ino
        listed = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    for line in listed:
        words = line.split()
        if "FLOCK" in words and any(word.endswith(f":{number}") and word.count(":") == 2 for word in words):
            return True
    return False


def state_of(attempts: Sequence[Mapping[str, Any]], *, is_running: bool) -> str:
    """Return how a run stands, in one word."""
    if is_running:
        return "running"
    if not attempts:
        return "not known"
    return {"done": "done", "stopped": "stopped"}.get(str(attempts[-1]["kind"]), "failed")
