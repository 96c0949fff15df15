"""``gptdist audit RUN``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    parser.add_argument("path", type=Path, metavar="RUN", help="run folder")
    parser.set_defaults(run=_audit)


def _audit(arguments: argparse.Namespace) -> int:
    from gptdist.checkpoint.audit import audit
    from gptdist.checkpoint.audit_report import report

    found = audit(arguments.path)
    for line in report(found):
        print(line)
    return 1 if found.problems else 0
