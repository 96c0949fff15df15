"""Start the ranks of a run on this machine, under torchrun."""

from pathlib import Path

from launch.agent import Agent
from launch.job import Job, NodeCommand, next_log_folder, torchrun_command
from launch.outcome import Outcome
from launch.supervisor import console, supervise
from launch.watch import Limits


def local_command(
    job: Job, *, cores: int, log_folder: Path | None = None, stop_after_seconds: float | None = None
) -> NodeCommand:
    """Return the command that runs ``job`` here.

    Args:
        job: what the ranks run.
        cores: processor cores to share out between the ranks.
        log_folder: default: the run's next one.
        stop_after_seconds: default: by the config's time limit.
    """
    return torchrun_command(
        job,
        log_folder or next_log_folder(job.config.folder),
        threads=max(1, cores // job.config.launch.ranks_per_node),
        stop_after_seconds=stop_after_seconds,
    )


def run_local(job: Job, command: NodeCommand) -> Outcome:
    """Run ``command`` to its end, once, and return how that was.

    Signals that ask for a stop are passed on, so that the ranks can save. If this process is killed, so is all that it
    started.
    """
    return Agent(command, Limits.of_config(job.config.launch), console("gptdist launch")).run()


def launch_local(job: Job, *, cores: int) -> int:
    """Train here, with restarts, and return the exit status; see ``gptdist.errors``."""

    def attempt(log_folder: Path, stop_after_seconds: float | None) -> Outcome:
        command = local_command(job, cores=cores, log_folder=log_folder, stop_after_seconds=stop_after_seconds)
        return run_local(job, command)

    return supervise(job.config, attempt, console("gptdist launch"))
