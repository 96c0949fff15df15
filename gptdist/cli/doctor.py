"""``gptdist doctor [CONFIG] [--hostfile FILE] [key=value …]``."""

import argparse
from pathlib import Path

from gptdist.cli.answer import add_json, answer

DEFAULT_PORT = 29500
"""torchrun's own."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    parser.add_argument("config", type=Path, nargs="?", help="run config (YAML); without, only the hosts are checked")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config values to replace")
    hosts = parser.add_mutually_exclusive_group()
    hosts.add_argument("--hostfile", type=Path, metavar="FILE", help="lines 'host slots=N'; default: this machine")
    hosts.add_argument("--slurm", action="store_true", help="the nodes of the Slurm job that this is part of")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="where the ranks meet, on the first host")
    parser.add_argument("--links", action="store_true", help="also measure all-reduces between pairs of hosts")
    add_json(parser)
    parser.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    import socket

    from gptdist.config.load import read_config
    from gptdist.config.run import RunConfig
    from gptdist.errors import EXIT_DONE, EXIT_FAILED, ConfigError
    from launch.hostfile import Host, read_hostfile, slots_problems
    from launch.preflight.check import check_nodes
    from launch.preflight.reach import Here, OverSsh, Reach, UnderSrun, allocated_hosts

    problems = [] if 0 < arguments.port < 2**16 else [f"--port: must be from 1 to 65535, got {arguments.port}"]
    config: RunConfig | None = None
    listed: tuple[Host, ...] = ()
    names: tuple[str, ...] = (socket.gethostname(),)
    reach: Reach = Here()
    try:
        if arguments.config is not None:
            config = read_config(RunConfig, arguments.config, arguments.overrides)
    except ConfigError as error:
        problems += error.problems
    try:
        if arguments.slurm:
            names, reach = allocated_hosts(), UnderSrun()
        elif arguments.hostfile is not None:
            listed, reach = read_hostfile(arguments.hostfile, ranks_per_node=None), OverSsh(Path.cwd())
            names = tuple(host.name for host in listed)
    except ConfigError as error:
        problems += error.problems
    if config is not None:
        ranks = config.launch.ranks_per_node
        problems += slots_problems(listed, str(arguments.hostfile), ranks)
        problems += [f"{arguments.config}: {problem}" for problem in config.problems(ranks * len(names))]
    if problems:
        raise ConfigError(problems)
    verdict = check_nodes(
        names, reach, port=arguments.port, config=config, config_path=arguments.config, links=arguments.links
    )
    answer(arguments, verdict.tree(), verdict.lines())
    return EXIT_DONE if verdict.passed else EXIT_FAILED
