"""``gptdist launch BACKEND CONFIG [key=value …]``; a back end's own arguments are in ``launch_<backend>.py``."""

import argparse
from pathlib import Path

from gptdist.cli import launch_mpi


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    backends = parser.add_subparsers(dest="backend", required=True, metavar="BACKEND")
    local = backends.add_parser("local", help="torchrun with launch.ranks_per_node ranks on this machine")
    local.add_argument("config", type=Path, help="run config (YAML)")
    local.add_argument("overrides", nargs="*", metavar="key=value", help="config values to replace")
    local.add_argument("--dry-run", action="store_true", help="print what would run, and run nothing")
    local.set_defaults(run=_local)
    launch_mpi.add(backends)


def _local(arguments: argparse.Namespace) -> int:
    import os

    from gptdist.cli.launch_checks import check_run
    from gptdist.config.load import load_config
    from gptdist.config.run import RunConfig
    from launch.local import local_command, run_local

    config = load_config(RunConfig, arguments.config, arguments.overrides)
    cores = len(os.sched_getaffinity(0))
    command = local_command(config, arguments.config, arguments.overrides, cores=cores)
    if arguments.dry_run:
        print(command.shell_line())
        return 0
    check_run(config)
    return run_local(command)
