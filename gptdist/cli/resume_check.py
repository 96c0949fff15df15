"""``gptdist resume-check RUN [key=value …]``."""

import argparse
import sys
from functools import partial
from pathlib import Path

from gptdist.cli.answer import add_json, answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    parser.add_argument("path", type=Path, metavar="RUN", help="run folder; it is only read")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="another layout, as in a launch")
    parser.add_argument("--steps", type=int, metavar="N", help="replay so many steps only; default: to the newest one")
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="allow losses and gradient norms to differ by this fraction; default: 0 on the run's own layout",
    )
    add_json(parser)
    parser.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    from gptdist.errors import EXIT_DONE, EXIT_FAILED
    from launch.resume_check import resume_check

    findings = resume_check(
        arguments.path,
        arguments.overrides,
        partial(print, flush=True, file=sys.stderr if arguments.json else sys.stdout),
        steps=arguments.steps,
        tolerance=arguments.tolerance,
    )
    also = [f"also: {problem}" for problem in findings.problems[1:]]
    tree = {
        "run": arguments.path,
        "passed": not findings.problems,
        "verdict": findings.verdict(),
        "problems": findings.problems,
        "lines": findings.lines,
    }
    answer(arguments, tree, [*findings.lines, *also, findings.verdict()])
    return EXIT_FAILED if findings.problems else EXIT_DONE
