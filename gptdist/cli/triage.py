"""``gptdist triage RUN --step N``."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gptdist.cli.quiet import hidden_libraries
from gptdist.errors import EXIT_USER_ERROR

if TYPE_CHECKING:
    from gptdist.triage.triage import Triage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    parser.add_argument("path", type=Path, metavar="RUN", help="run folder; it is only read, and may be training")
    parser.add_argument("--step", type=int, required=True, metavar="N", help="as in the log: the line 'step N'")
    parser.add_argument("--attempt", type=int, metavar="A", help="default: the newest that did the step")
    parser.add_argument("--samples", type=int, metavar="K", help="show the K most suspicious ones; default: all")
    parser.add_argument("--no-gradients", action="store_true", help="load no checkpoint; seconds in place of minutes")
    parser.add_argument(
        "--no-replay", action="store_true", help="take the checkpoint's weights, do not train on to step N - 1"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="for the gradients")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page, too")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.set_defaults(run=_triage)


def _triage(arguments: argparse.Namespace) -> int:
    from gptdist.errors import ConfigError
    from gptdist.triage.triage import Options, triage

    problems = _argument_problems(arguments)
    if problems:
        raise ConfigError(problems)
    options = Options(
        with_gradients=not arguments.no_gradients,
        with_replay=not arguments.no_replay,
        device=arguments.device,
        attempt=arguments.attempt,
    )

    def say(line: str) -> None:
        print(f"gptdist triage: {line}", file=sys.stderr, flush=True)

    with hidden_libraries():
        found = triage(arguments.path, arguments.step, options, say)
    _show(found, arguments)
    for problem in found.problems:
        print(f"gptdist triage: error: {problem}", file=sys.stderr)
    return EXIT_USER_ERROR if found.problems else 0


def _argument_problems(arguments: argparse.Namespace) -> list[str]:
    bad = []
    if arguments.samples is not None and arguments.samples < 1:
        bad.append(f"--samples: must be at least 1, got {arguments.samples}")
    page = arguments.html
    if page is not None and not page.parent.is_dir():
        bad.append(f"--html {page}: the folder '{page.parent}' does not exist; make it, or name another file")
    elif page is not None and page.is_dir():
        bad.append(f"--html {page}: is a folder; name a file")
    return bad


def _show(found: "Triage", arguments: argparse.Namespace) -> None:
    import json

    from gptdist.durable import write_whole
    from gptdist.triage.page import page
    from gptdist.triage.text import lines
    from gptdist.triage.tree import tree

    if arguments.html is not None:
        content = page(found, arguments.samples).encode("utf-8", errors="backslashreplace")
        write_whole(arguments.html, content)
    if arguments.json:
        print(json.dumps(tree(found)))
        return
    for line in lines(found, arguments.samples):
        print(line)
