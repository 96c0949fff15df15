"""``gptdist nodes RUN [--forgive NODE | --exclude NODE --reason TEXT] [--json]``."""

import argparse
from pathlib import Path

from gptdist.cli.answer import add_json, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    parser.add_argument("path", type=Path, metavar="RUN", help="run folder")
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--forgive", metavar="NODE", help="let launches use it again")
    change.add_argument("--exclude", metavar="NODE", help="let launches do without it")
    parser.add_argument("--reason", metavar="TEXT", help="why, with --exclude")
    add_json(parser)
    parser.set_defaults(run=_nodes)


def _nodes(arguments: argparse.Namespace) -> int:
    import time
    from dataclasses import asdict

    from gptdist.errors import LaunchError
    from launch.nodes import blame, blames, excluded

    run: Path = arguments.path
    known = {one.node for one in blames(run)}
    problems = [] if run.is_dir() else [f"{run}: no such folder; name that of a run"]
    if arguments.exclude and not arguments.reason:
        problems.append(f"--reason: say why {arguments.exclude} is excluded; who reads it later was not there")
    if arguments.reason and not arguments.exclude:
        problems.append("--reason: goes with --exclude NODE only; leave it out")
    if run.is_dir() and arguments.forgive and arguments.forgive not in known:
        problems.append(f"--forgive: nothing is noted of '{arguments.forgive}' in {run}; see 'gptdist nodes {run}'")
    if problems:
        raise LaunchError(problems)
    if arguments.forgive:
        blame(run, arguments.forgive, "forgiven by hand", kind="forgiven")
    if arguments.exclude:
        blame(run, arguments.exclude, arguments.reason, kind="excluded")
    left_out, lines = excluded(run), blames(run)
    if arguments.json:
        print_json({"excluded": left_out, "blames": [asdict(one) for one in lines]})
        return 0
    for one in lines:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.time))
        where = f" after step {one.step}, {one.launch}" if one.launch else ""
        print(f"{when}  {one.node}  {one.kind}{where}: {one.reason}")
    print(f"excluded: {', '.join(left_out) or 'none'}")
    return 0
