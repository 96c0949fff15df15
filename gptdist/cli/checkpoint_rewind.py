"""``gptdist checkpoint rewind RUN --to M``: by hand what a run does after too many skipped steps."""

import argparse
from pathlib import Path
from typing import Any

from gptdist.cli.answer import answer


def add_action(actions: Any) -> None:
    """Add the action to those of ``gptdist checkpoint``."""
    action = actions.add_parser(
        "rewind",
        help="have a run go on from an older checkpoint, past data that did it harm",
        description="Make an older checkpoint the newest, at a later place in the data; later ones are deleted.",
    )
    action.add_argument("path", type=Path, metavar="RUN", help="run folder; the run must not be training")
    action.add_argument("--to", type=int, required=True, metavar="M", help="step of the checkpoint to go back to")
    action.add_argument(
        "--past", type=int, metavar="N", help="pass over the data from there to step N; default: read it again"
    )
    action.add_argument("--dry-run", action="store_true", help="change nothing, show what would happen")
    action.set_defaults(run=_rewind)


def _rewind(arguments: argparse.Namespace) -> None:
    from gptdist.triage.rewind import plan_rewind, rewind

    plan = plan_rewind(arguments.path, arguments.to, arguments.past)
    if not arguments.dry_run:
        rewind(plan)
    passed = plan.passed_over
    tree = {
        "run": plan.run,
        "last_step": plan.last_step,
        "checkpoint": plan.checkpoint,
        "passed_over_samples": {"first": passed.start, "stop": passed.stop},
        "deleted": list(plan.removed),
        "is_done": not arguments.dry_run,
    }
    lines = plan.lines()
    if not arguments.dry_run:
        lines.append(f"the command that started the run goes on from {plan.checkpoint}")
    answer(arguments, tree, lines)
