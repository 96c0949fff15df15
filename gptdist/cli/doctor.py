"""``gptdist doctor [CONFIG] [--hostfile FILE] [key=value …]``."""

import argparse
from pathlib import Path

DEFAULT_PORT = 29500
"""torchrun's own."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    parser.add_argument("config", type=Path, nargs="?", help="run config (YAML); without, only the hosts are checked")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config values to replace")
    parser.add_argument("--hostfile", type=Path, metavar="FILE", help="lines 'host slots=N'; default: this machine")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="where the ranks meet, on the first host")
    parser.add_argument("--links", action="store_true", help="also measure all-reduces between pairs of hosts")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    import json
    import socket

    from gptdist.config.load import load_config
    from gptdist.config.run import RunConfig
    from gptdist.errors import ConfigError
    from launch.hostfile import read_hostfile
    from launch.preflight.check import check_nodes
    from launch.preflight.reach import Here, OverSsh, Reach

    problems = [] if 0 < arguments.port < 2**16 else [f"--port: must be from 1 to 65535, got {arguments.port}"]
    config = None
    hosts: tuple[str, ...] = (socket.gethostname(),)
    reach: Reach = Here()
    try:
        if arguments.config is not None:
            config = load_config(RunConfig, arguments.config, arguments.overrides)
    except ConfigError as error:
        problems += error.problems
    try:
        if arguments.hostfile is not None:
            ranks = None if config is None else config.launch.ranks_per_node
            hosts = tuple(host.name for host in read_hostfile(arguments.hostfile, ranks_per_node=ranks))
            reach = OverSsh(Path.cwd())
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    verdict = check_nodes(
        hosts, reach, port=arguments.port, config=config, config_path=arguments.config, links=arguments.links
    )
    for line in [json.dumps(verdict.tree())] if arguments.json else verdict.lines():
        print(line)
    return 0 if verdict.passed else 1
