"""``gptdist audit RUN``."""

import argparse
from pathlib import Path

from gptdist.cli.answer import add_json, answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    parser.add_argument("path", type=Path, metavar="RUN", help="run folder")
    add_json(parser)
    parser.set_defaults(run=_audit)


def _audit(arguments: argparse.Namespace) -> int:
    from gptdist.checkpoint.audit import audit
    from gptdist.checkpoint.audit_report import audit_tree, report
    from gptdist.errors import EXIT_DONE, EXIT_FAILED

    found = audit(arguments.path)
    answer(arguments, audit_tree(found), report(found))
    return EXIT_FAILED if found.problems else EXIT_DONE
