"""``gptdist resume-check RUN [key=value …]``."""

import argparse
from functools import partial
from pathlib import Path


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
    parser.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    from launch.resume_check import resume_check

    findings = resume_check(
        arguments.path,
        arguments.overrides,
        partial(print, flush=True),
        steps=arguments.steps,
        tolerance=arguments.tolerance,
    )
    for line in findings.lines:
        print(line)
    for problem in findings.problems[1:]:
        print(f"also: {problem}")
    print(findings.verdict())
    return 1 if findings.problems else 0
