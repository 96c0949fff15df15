"""``gptdist launch BACKEND CONFIG [key=value …]``; a back end's own arguments are in ``launch_<backend>.py``."""

import argparse

from gptdist.cli import launch_hostfile, launch_k8s, launch_mpi, launch_slurm
from gptdist.cli.launch_job import add_job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    backends = parser.add_subparsers(dest="backend", required=True, metavar="BACKEND")
    local = backends.add_parser("local", help="torchrun with launch.ranks_per_node ranks on this machine")
    add_job(local)
    local.set_defaults(run=_local)
    launch_hostfile.add(backends)
    launch_k8s.add(backends)
    launch_mpi.add(backends)
    launch_slurm.add(backends)


def _local(arguments: argparse.Namespace) -> int:
    import os

    from launch.checks import check_run, read_job
    from launch.local import launch_local, local_command

    job = read_job(arguments.config, arguments.overrides)
    cores = len(os.sched_getaffinity(0))
    if arguments.dry_run:
        print(local_command(job, cores=cores).shell_line())
        return 0
    check_run(job.config)
    return launch_local(job, cores=cores)
