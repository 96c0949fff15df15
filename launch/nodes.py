"""Which nodes have made a run fail, kept in its folder from launch to launch.

The rule: a node that was lost, or that failed a check before the start, is left out from then on. A rank that died or
hung is left to chance once; twice in a row on the same node, and that is left out, too. An error of the program in the
same step as the time before is the program's fault, whichever node it shows on.
"""

import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from gptdist.telemetry.ledger import read_json_lines
from gptdist.telemetry.line_file import append_whole, json_line
from launch.outcome import Outcome

NODES_NAME = "nodes.jsonl"
MOST_IN_A_ROW = 2

Kind = Literal["lost", "preflight", "killed", "stalled", "error", "excluded", "forgiven"]
"""``excluded`` and ``forgiven`` are a person's word."""

AT_ONCE: tuple[Kind, ...] = ("lost", "preflight", "excluded")


@dataclass(frozen=True)
class Blame:
    """One line of the file."""

    time: float
    """Seconds since 1970."""

    node: str
    kind: Kind
    reason: str
    """In words."""

    launch: str
    """Name of the launch's folder; empty: none was at work."""

    step: int = 0
    """After which it happened."""


def blame(run: Path, node: str, reason: str, *, kind: Kind, launch: str = "", step: int = 0) -> None:
    """Note in the run's folder that ``node`` was to blame, or what a person says of it.

    Args:
        run: folder.
        node: as the back end calls it.
        reason: in words.
        kind: what it was.
        launch: name of the launch's folder.
        step: after which it was.
    """
    run.mkdir(parents=True, exist_ok=True)
    line = Blame(time.time(), node, kind, " ".join(reason.split()), launch, step)
    append_whole(run / NODES_NAME, json_line(asdict(line)))


def blames(run: Path) -> list[Blame]:
    """Return what the run's folder has noted, oldest first."""
    names = {one.name for one in fields(Blame)}
    return [Blame(**line) for line in read_json_lines(run / NODES_NAME) if set(line) == names]


def excluded(run: Path) -> dict[str, str]:
    """Return the nodes that a launch of the run does without, each with the reason."""
    found: dict[str, str] = {}
    row: list[Blame] = []
    for one in blames(run):
        if one.kind == "forgiven":
            found.pop(one.node, None)
            row = [] if row and row[0].node == one.node else row
        elif one.kind in AT_ONCE:
            found[one.node] = one.reason
        else:
            row = [*row, one] if row and row[0].node == one.node and not _is_programs_fault(row[-1], one) else [one]
            if len(row) >= MOST_IN_A_ROW:
                found[one.node] = f"{len(row)} times in a row: {one.reason}"
    return found


def _is_programs_fault(before: Blame, now: Blame) -> bool:
    return before.kind == now.kind == "error" and before.step == now.step


def blame_for(run: Path, outcome: Outcome, launch: str) -> None:
    """Note whose fault it was that an attempt ended so: every node that was lost, else that of the first failure.

    Args:
        run: folder.
        outcome: of all nodes together.
        launch: name of the launch's folder.
    """
    first = outcome.first_failure
    lost = [one for one in outcome.failures if one.kind == "lost"]
    for one in lost or ([first] if first is not None else []):
        if one.kind != "refused":
            text = one.text.strip().splitlines()[-1][:300] if one.text.strip() else one.kind
            rank = "" if one.rank is None else f"rank {one.rank}: "
            blame(run, one.node, f"{rank}{text}", kind=one.kind, launch=launch, step=one.step)
