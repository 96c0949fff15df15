"""``gptdist rehearse CONFIG [key=value …]``: see docs/rehearse.md."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gptdist.cli.answer import add_json, print_json
from gptdist.cli.terminal import painted

if TYPE_CHECKING:
    from gptdist.cli.rehearse_materials import Rehearsal
    from gptdist.cli.rehearse_phases import Phase


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    parser.epilog = "Exit status 0: all of it works; 1: a phase failed; 2: config, data or options have to be mended."
    parser.add_argument("config", type=Path, help="run config (YAML)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config values to replace")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="of the real job (default: 1)")
    parser.add_argument(
        "--ranks", type=int, metavar="N", help="processes here, 16 at most (default: two for each axis that is split)"
    )
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--real-data", action="store_true", help="the config's tokenizer and data have to be here")
    data.add_argument("--made-data", action="store_true", help="do not look for them (default: if they are not here)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="new folder for all that is made (default: removed)")
    add_json(parser)
    parser.set_defaults(run=_rehearse)


def _rehearse(arguments: argparse.Namespace) -> int:
    import tempfile

    from gptdist.cli.rehearse_materials import checked_folder, prepare
    from gptdist.errors import EXIT_DONE, EXIT_FAILED
    from launch.checks import read_job

    job = read_job(arguments.config, arguments.overrides, nodes=arguments.nodes)
    kept = None if arguments.keep is None else checked_folder(arguments.keep)
    with tempfile.TemporaryDirectory(prefix="gptdist-rehearse-") as scratch:
        rehearsal = prepare(
            job.config,
            kept or Path(scratch),
            nodes=arguments.nodes,
            ranks=arguments.ranks,
            real_data=True if arguments.real_data else False if arguments.made_data else None,
        )
        passed = _perform(rehearsal, arguments)
    return EXIT_DONE if passed else EXIT_FAILED


def _perform(rehearsal: "Rehearsal", arguments: argparse.Namespace) -> bool:
    """Go through all phases, show them, and return whether none failed."""
    import sys

    from gptdist.cli.rehearse_phases import phases

    phases_done: list[Phase] = []
    if not arguments.json:
        print("\n".join(rehearsal.heading()), flush=True)
    for phase in phases(rehearsal):
        phases_done.append(phase)
        if not arguments.json:
            print(phase.line(), flush=True)
        if phase.details:
            print(phase.details, file=sys.stderr, flush=True)
    failed = [phase.name for phase in phases_done if phase.status == "FAILED"]
    if arguments.json:
        tree = {"passed": not failed, **rehearsal.tree(), "phases": [phase.tree() for phase in phases_done]}
        print_json(tree)
        return not failed
    if arguments.keep is not None:
        print(f"kept: {arguments.keep}, with what each command has said in *.txt")
    elif failed:
        print("nothing is kept; with --keep DIR the logs of all ranks are")
    print(painted(_verdict(phases_done, failed)))
    return not failed


def _verdict(phases_done: "list[Phase]", failed: list[str]) -> str:
    if failed:
        return f"FAIL  {', '.join(failed)}"
    absent = ", ".join(phase.name for phase in phases_done if phase.status == "none")
    return "PASS  all phases" + (f" but {absent}: there is none" if absent else "")
