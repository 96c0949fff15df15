"""``gptdist launch mpi CONFIG [key=value …]``."""

import argparse
from pathlib import Path
from typing import Any

from gptdist.cli.launch_job import add_job


def add(backends: Any) -> None:
    """Add this back end's parser."""
    mpi = backends.add_parser("mpi", help="Open MPI's mpirun, on this machine or on the hosts that it is given")
    add_job(mpi)
    mpi.add_argument("--nodes", type=int, default=1, help="hosts, each with launch.ranks_per_node ranks (default: 1)")
    mpi.add_argument("--head", help="the host of rank 0, as the others reach it; needed for more than one")
    mpi.add_argument("--hostfile", type=Path, help="mpirun's hostfile (default: the hosts of the batch system's job)")
    mpi.set_defaults(run=_mpi)


def _mpi(arguments: argparse.Namespace) -> int:
    import os

    from launch.checks import check_run, read_job
    from launch.mpi import Hosts, check_mpirun, mpi_command, run_mpi

    hosts = Hosts(arguments.nodes, arguments.hostfile, arguments.head)
    job = read_job(arguments.config, arguments.overrides, nodes=hosts.nodes, others=hosts.problems())
    command = mpi_command(
        job,
        hosts=hosts,
        cores=len(os.sched_getaffinity(0)),
        as_root=os.geteuid() == 0,
    )
    if arguments.dry_run:
        print(command.shell_line())
        return 0
    check_mpirun()
    check_run(job.config)
    return run_mpi(command)
