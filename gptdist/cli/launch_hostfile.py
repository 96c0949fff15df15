"""``gptdist launch hostfile CONFIG [key=value …] --hostfile FILE``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptdist.cli.launch_job import add_job

if TYPE_CHECKING:
    from launch.hostfile_job import Hosts
    from launch.job import Job


def add(backends: Any) -> None:
    """Add this back end's parser."""
    hosts = backends.add_parser("hostfile", help="torchrun on the hosts of a file, by ssh, with restarts")
    add_job(hosts)
    hosts.add_argument("--hostfile", type=Path, required=True, metavar="FILE", help="lines 'host slots=N'")
    hosts.add_argument("--nodes", type=int, metavar="N", help="hosts to run on, the others are spares (default: all)")
    hosts.add_argument("--min-nodes", type=int, metavar="M", help="go on with so few if hosts are lost (default: N)")
    hosts.add_argument("--head-port", type=int, metavar="P", help="where ranks meet on the first host (default: 29500)")
    hosts.add_argument("--export", action="append", default=[], metavar="NAME", help="a variable that ranks get, too")
    hosts.add_argument("--no-preflight", action="store_true", help="do not look at the hosts before the start")
    hosts.set_defaults(run=_hostfile)


def _hostfile(arguments: argparse.Namespace) -> int:
    from launch.checks import check_run
    from launch.hostfile_job import HostfileJob
    from launch.job import next_log_folder
    from launch.supervisor import console

    say = console("gptdist launch")
    job, hosts = _read(arguments)
    launch = HostfileJob(job, hosts, arguments.export, say)
    if arguments.dry_run:
        for line in launch.shell_lines(next_log_folder(job.config.folder)):
            print(line)
        return 0
    check_run(job.config)
    if not arguments.no_preflight:
        launch.check()
    return launch.run()


def _read(arguments: argparse.Namespace) -> tuple["Job", "Hosts"]:
    """Return what is to run, and where; all that is wrong with either is raised at once."""
    import contextlib
    import os

    from gptdist.config.load import read_config
    from gptdist.config.run import RunConfig
    from gptdist.errors import ConfigError
    from launch.checks import read_job
    from launch.hostfile import read_hostfile
    from launch.hostfile_job import DEFAULT_PORT, Hosts

    problems: list[str] = []
    names: tuple[str, ...] = ()
    ranks = None
    with contextlib.suppress(ConfigError):  # it is read again below, with the rest
        ranks = read_config(RunConfig, arguments.config, arguments.overrides).launch.ranks_per_node
    try:
        names = tuple(host.name for host in read_hostfile(arguments.hostfile, ranks_per_node=ranks))
    except ConfigError as error:
        problems += error.problems
    nodes = arguments.nodes if arguments.nodes is not None else max(1, len(names))
    hosts = Hosts(
        names,
        nodes,
        nodes if arguments.min_nodes is None else arguments.min_nodes,
        DEFAULT_PORT if arguments.head_port is None else arguments.head_port,
    )
    problems += hosts.problems()
    problems += [f"--export: {name} is not set here; set it" for name in arguments.export if name not in os.environ]
    return read_job(arguments.config, arguments.overrides, nodes=nodes, others=problems), hosts
