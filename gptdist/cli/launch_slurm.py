"""``gptdist launch slurm CONFIG [key=value …] --nodes N``."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptdist.cli.launch_job import add_job

if TYPE_CHECKING:
    from launch.slurm import SlurmOptions


def add(backends: Any) -> None:
    """Add this back end's parser."""
    slurm = backends.add_parser("slurm", help="a job of Slurm, one task a node, requeued until the run is done")
    add_job(slurm, dry_run="print the script, and submit nothing")
    slurm.add_argument("--nodes", type=int, required=True, help="each with launch.ranks_per_node ranks")
    slurm.add_argument("--name", help="of the job (default: the run's)")
    slurm.add_argument("--partition")
    slurm.add_argument("--account")
    slurm.add_argument("--qos")
    slurm.add_argument("--time", help="time limit of a job, as sbatch takes it (default: the partition's)")
    slurm.add_argument("--gpus", type=int, help="of a node (default: not asked for)")
    slurm.add_argument("--cpus", type=int, help="of a node (default: not asked for)")
    slurm.add_argument("--chain", type=int, metavar="K", help="K jobs, one after the other, instead of a requeued one")
    slurm.add_argument("--exclude", action="append", default=[], metavar="NODES", help="run on none of these")
    slurm.add_argument("--container-image", help="run the ranks in it; the script runs outside")
    slurm.add_argument("--container-runtime", choices=("pyxis", "apptainer"), default="pyxis", help="default: pyxis")
    slurm.add_argument("--container-mount", action="append", default=[], metavar="OUTSIDE:INSIDE")
    slurm.add_argument("--container-python", default="python3", help="the image's interpreter (default: python3)")
    slurm.add_argument("--sbatch", action="append", default=[], metavar="OPTION", help="one more option of sbatch")
    slurm.set_defaults(run=_slurm)


def _slurm(arguments: argparse.Namespace) -> int:
    from gptdist.errors import LaunchError
    from launch.checks import check_run, read_job
    from launch.nodes import excluded
    from launch.slurm import batch_script, check_sbatch, next_script, submit

    job = read_job(arguments.config, arguments.overrides, nodes=arguments.nodes)
    run = job.config.folder
    left_out = {node: reason for node, reason in excluded(run).items() if node not in arguments.exclude}
    options = _options(arguments, job.config.name, left_out)
    problems = options.problems(job.config.launch)
    if problems:
        raise LaunchError(problems)
    script = batch_script(job, options, working_dir=Path.cwd())
    if arguments.dry_run:
        print(script, end="")
        return 0
    check_sbatch()
    check_run(job.config)
    for node, reason in left_out.items():
        print(f"{node} is left out: {reason}; 'gptdist nodes {run} --forgive {node}' takes it back")
    path = next_script(run)
    number = submit(script, path)
    print(
        f"job {number} is submitted; {path.parent}/slurm-{number}{'_*' if options.chain else ''}.out says how it goes"
    )
    return 0


def _options(arguments: argparse.Namespace, run_name: str, left_out: Iterable[str]) -> "SlurmOptions":
    from launch.slurm import Container, SlurmOptions

    container = None
    if arguments.container_image is not None:
        mounts = tuple(arguments.container_mount)
        container = Container(
            arguments.container_image, arguments.container_runtime, mounts, arguments.container_python
        )
    return SlurmOptions(
        nodes=arguments.nodes,
        name=run_name if arguments.name is None else arguments.name,
        partition=arguments.partition,
        account=arguments.account,
        qos=arguments.qos,
        time=arguments.time,
        gpus=arguments.gpus,
        cpus=arguments.cpus,
        chain=arguments.chain,
        exclude=(*arguments.exclude, *left_out),
        container=container,
        extra=tuple(arguments.sbatch),
    )
