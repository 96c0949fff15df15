"""The records of a run around a step: how far off they are, what the guards did, when trouble began; no torch."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from gptdist.data.attempts import START, Attempt
from gptdist.telemetry.ledger import ENDED, LEDGER_NAME, read_json_lines
from gptdist.telemetry.metrics import METRICS_NAME
from gptdist.triage.robust import MIN_NUMBERS, robust_z

WINDOW = 32
"""Ordinary records whose jumps say how far a number jumps."""

FLOOR = 0.02
"""Least robust deviation, as a fraction of the median: ``guards.min_deviation``'s default."""

ODD = 6.0
"""Robust standard deviations from which on a record is odd."""

SHOWN = 5
"""Records before the trouble, at its beginning and behind the step that are shown; up to the step twice as many."""

_TIMES = ("step_seconds", "slowest_rank_seconds", "communication_seconds", "tokens_per_second")


@dataclass(frozen=True)
class Record:
    """One line of the metrics."""

    step: int
    attempt: int
    loss: float | None
    """None: not finite."""

    grad_norm: float | None
    """None: not finite, or not known."""

    lr: float | None
    is_skipped: bool
    times: Mapping[str, float | None]
    loss_z: float | None = None
    """Robust standard deviations of its jump from the ordinary records before it; None: too few."""

    grad_norm_z: float | None = None

    @property
    def is_odd(self) -> bool:
        """Whether it was skipped, is not finite, or is far above those before it."""
        is_far = any(z is not None and z > ODD for z in (self.loss_z, self.grad_norm_z))
        return self.is_skipped or self.loss is None or is_far


@dataclass(frozen=True)
class Timeline:
    """What the records say of a step."""

    step: int
    attempt: int
    attempt_first_step: int
    """Steps done before the attempt began."""

    layout: str
    is_recorded: bool
    """Whether a record proves that the attempt did the step: else it may have failed in it, or is at it."""

    attempt_end: str
    records: tuple[Record, ...]
    record: Record | None
    """Of the step itself; None where it was not logged."""

    first_odd_step: int
    """Where the odd records begin that lead to the step; the step itself where none before it is odd."""

    is_skipped: bool
    actions: tuple[str, ...]
    """What the guards did about it, in words."""


def read_timeline(run: Path, attempts: Sequence[Attempt], attempt: Attempt, step: int) -> Timeline:
    """Return what the records of ``run`` say of ``step`` of ``attempt``; a run that trains may write meanwhile."""
    rows = [row for row in read_json_lines(run / METRICS_NAME) if isinstance(row, dict) and row.get("kind") == "train"]
    events = [event for event in read_json_lines(run / LEDGER_NAME) if isinstance(event, dict)]
    records = judged(line_of(rows, attempts, attempt))
    mine = [event for event in events if event.get("attempt") == attempt.number]
    start = next((event for event in mine if event.get("event") == START), {})
    first_odd = _first_odd(records, step)
    before = [one for one in records if one.step < first_odd][-SHOWN:]
    after = [one for one in records if one.step > step][:SHOWN]
    between = [one for one in records if first_odd <= one.step <= step]
    return Timeline(
        step=step,
        attempt=attempt.number,
        attempt_first_step=attempt.first_step,
        layout=str(start.get("layout", "")),
        is_recorded=step <= attempt.recorded_step,
        attempt_end=_end(mine),
        records=(*before, *between[: -2 * SHOWN][:SHOWN], *between[-2 * SHOWN :], *after),
        record=next((one for one in records if one.step == step), None),
        first_odd_step=first_odd,
        is_skipped=any(event.get("event") == "skip" and event.get("step") == step for event in mine),
        actions=tuple(_actions(mine, attempt, step)),
    )


def line_of(
    rows: Sequence[Mapping[str, Any]], attempts: Sequence[Attempt], attempt: Attempt
) -> list[Mapping[str, Any]]:
    """Return the rows that led to ``attempt``, and its own: of a step that was done twice, the one it went on from.

    What an attempt logged behind the step that a later one began with was lost.
    """
    begins = {one.number: one.first_step for one in attempts}
    chosen: dict[int, Mapping[str, Any]] = {}
    for row in sorted((one for one in rows if one.get("attempt", 0) <= attempt.number), key=_place):
        number, step = row.get("attempt", 0), int(row["step"])
        later = [first for other, first in begins.items() if number < other <= attempt.number]
        if step <= min(later, default=step):
            chosen[step] = row
    return [chosen[step] for step in sorted(chosen)]


def _place(row: Mapping[str, Any]) -> tuple[int, int]:
    return int(row.get("attempt", 0)), int(row["step"])


def judged(rows: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Return the records of ``rows``, oldest first, each compared with the ordinary ones before it."""
    histories = {"loss": _History(), "grad_norm": _History()}
    records = []
    for row in rows:
        z = {name: history.z_score(row.get(name)) for name, history in histories.items()}
        record = Record(
            step=int(row["step"]),
            attempt=int(row.get("attempt", 0)),
            loss=row.get("loss"),
            grad_norm=row.get("grad_norm"),
            lr=row.get("lr"),
            is_skipped=bool(row.get("skipped")),
            times={name: row.get(name) for name in _TIMES},
            loss_z=z["loss"],
            grad_norm_z=z["grad_norm"],
        )
        records.append(record)
        if not record.is_odd:
            for name, history in histories.items():
                history.add(row.get(name))
    return records


class _History:
    """Ordinary values of one number: the last ones, and how far each was from those right before it.

    A loss falls while it is learnt: over many records it is the jumps that are alike, not the values.
    """

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=MIN_NUMBERS)
        self._jumps: deque[float] = deque(maxlen=WINDOW)

    def z_score(self, value: float | None) -> float | None:
        if value is None or not self._last:
            return None
        middle = median(self._last)
        return robust_z(value - middle, self._jumps, FLOOR * abs(middle))

    def add(self, value: float | None) -> None:
        if value is None:
            return
        if self._last:
            self._jumps.append(value - median(self._last))
        self._last.append(value)


def _first_odd(records: Sequence[Record], step: int) -> int:
    first = step
    for record in reversed([one for one in records if one.step <= step]):
        if not record.is_odd:
            break
        first = min(first, record.step)
    return first


def _actions(events: Sequence[Mapping[str, Any]], attempt: Attempt, step: int) -> list[str]:
    """Return what the guards did about a step of the attempt whose events these are."""
    said = [
        f"skipped: {_reason(event)}; the weights stayed as they were"
        for event in events
        if event.get("event") == "skip" and event.get("step") == step
    ]
    for event in events:
        if event.get("event") == "rewind" and event["to_step"] < step <= event["step"]:
            by = " by hand" if event.get("by") == "hand" else ""
            passed = _span(event["first_sample"], event["last_sample"])
            said.append(f"the run went back{by} from step {event['step']} to {event['to_step']}, {passed}")
    guards = attempt.config.guards
    limit = "not finite" if guards.max_z_score is None else f"not finite, or {guards.max_z_score:g} deviations above"
    return said or [f"nothing: the step was taken (guards refuse what is {limit})"]


def _span(first: int, last: int) -> str:
    return f"and passed over samples {first} to {last}" if last >= first else "and passed over no sample"


def _reason(event: Mapping[str, Any]) -> str:
    name, value = str(event["what"]).replace("grad_norm", "gradient norm"), event["value"]
    if event.get("mean") is None:
        return f"{name} is {value}"
    return f"{name} {value:.4g} is {event['z_score']:.1f} standard deviations above {event['mean']:.4g}"


def _end(events: Sequence[Mapping[str, Any]]) -> str:
    for event in reversed(events):
        if event.get("event") in ("done", "stopped", "rewind"):
            return f"{event['event']} at step {event['step']}"
        if event.get("event") == ENDED:
            return str(event.get("reason", "ended"))
    return "runs, or was killed"
