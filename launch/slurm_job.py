"""What the batch script of a job of Slurm becomes: ``python -m launch.slurm_job [options] -- CONFIG [key=value …]``.

It starts one agent a node with ``srun``, again where that failed, passes the signal before the time limit on, and has
the job requeued once the ranks have saved. It works without torch.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Self

from gptdist.config.run import RunConfig
from gptdist.device.rank_environment import port_of
from gptdist.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_REQUEUE,
    EXIT_STOPPED,
    EXIT_USER_ERROR,
    GptDistError,
    LaunchError,
)
from gptdist.telemetry.ledger import LEDGER_NAME, read_json_lines
from launch.checks import read_job
from launch.job import Job, NodeCommand, Rendezvous, agent_command, torchrun_command
from launch.nodes import blame, blame_for, excluded
from launch.outcome import Outcome, joined, read_outcomes
from launch.slurm import Container
from launch.slurm_control import Control
from launch.supervisor import console, newest_step, supervise

POLL_SECONDS = 0.2
WAIT_SECONDS = 120
"""How long srun waits for the other agents once one has ended well; ranks end together."""

_NODE_RANK = 'PET_NODE_RANK=$SLURM_NODEID exec "$@"'
"""Tells torchrun which node it is on: only the task itself knows. The words behind it are never read as shell."""


@dataclass(frozen=True)
class Allocation:
    """The job as Slurm's variables have it."""

    job_id: str
    nodes: tuple[str, ...]
    head: str
    """Address of the first node."""

    restarts: int = 0
    """How often the job was requeued."""

    element: int | None = None
    """Of a chain, from 1 to ``last_element``."""

    last_element: int | None = None
    array_id: str | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str], control: Control) -> Self:
        """Return the job in whose script this process is.

        Raises:
            LaunchError: it is in none.
        """
        job_id, listed = environment.get("SLURM_JOB_ID"), environment.get("SLURM_JOB_NODELIST")
        if job_id is None or listed is None:
            raise LaunchError(["SLURM_JOB_ID: is not set; this is for batch scripts: use gptdist launch slurm"])
        nodes = control.hostnames(listed)
        element, last = environment.get("SLURM_ARRAY_TASK_ID"), environment.get("SLURM_ARRAY_TASK_MAX")
        return cls(
            job_id,
            nodes,
            control.address(nodes[0]),
            restarts=int(environment.get("SLURM_RESTART_COUNT", "0")),
            element=None if element is None else int(element),
            last_element=None if last is None else int(last),
            array_id=environment.get("SLURM_ARRAY_JOB_ID"),
        )

    def port(self, attempt: int) -> int:
        """Return where the nodes meet in an attempt."""
        return port_of(f"{self.job_id}/{self.restarts}/{attempt}")


class UnfitNodesError(Exception):
    """Nodes of the allocation are gone, or are not as they have to be: the run cannot go on there."""

    def __init__(self, nodes: Sequence[str]) -> None:
        self.nodes = tuple(nodes)
        super().__init__(", ".join(nodes))


class SlurmJob:
    """Keeps a run going for as long as the job has its nodes."""

    def __init__(self, job: Job, allocation: Allocation, control: Control, container: Container | None) -> None:
        """Start nothing yet."""
        self._job, self._allocation, self._control, self._container = job, allocation, control, container
        self._say = console("gptdist")
        self._step: subprocess.Popen[bytes] | None = None
        self._was_asked = False
        self._attempts = 0
        self._launch = ""

    def run(self) -> int:
        """Train until the run is done or the job ends, and return the script's exit status."""
        config = self._job.config
        if is_done(config):
            self._say(f"{config.name}: is done, at step {config.training.train_steps}")
            return EXIT_DONE
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, self._ask_to_stop)
        try:
            self._look_at_nodes()
            status = supervise(config, self._attempt, self._say, regroup=self._regroup, pause=self._pause)
        except UnfitNodesError as unfit:
            self._say(f"cannot go on with {unfit}; the job goes on elsewhere")
            return self._again(without=unfit.nodes)
        if status == EXIT_REQUEUE:
            return self._again()
        if status in {EXIT_USER_ERROR, EXIT_STOPPED} and self._allocation.array_id is not None:
            self._control.cancel_pending(self._allocation.array_id)
        return status

    def _attempt(self, log_folder: Path, stop_after_seconds: float | None) -> Outcome:
        """Run the ranks once, on all nodes."""
        if self._was_asked:
            return Outcome(EXIT_REQUEUE, 0)
        self._stop_if_down()
        self._attempts += 1
        self._launch = log_folder.name
        command = step_command(
            self._job,
            self._allocation,
            log_folder,
            attempt=self._attempts,
            container=self._container,
            stop_after_seconds=stop_after_seconds,
        )
        cpus = os.environ.get("SLURM_CPUS_PER_TASK")  # srun of 22.05 and later does not take the job's by itself
        ours = {} if cpus is None else {"SRUN_CPUS_PER_TASK": cpus}
        self._step = subprocess.Popen(command.argv, env={**os.environ, **ours, **dict(command.environment)})
        if self._was_asked:
            self._step.send_signal(signal.SIGUSR1)  # it came in between
        self._step.wait()
        outcomes = read_outcomes(log_folder)
        # srun ends all agents once one has failed; who has left nothing was not the first.
        if outcomes:
            return joined(list(outcomes.values()))
        return Outcome(EXIT_REQUEUE if self._was_asked else EXIT_FAILED, 0)

    def _stop_if_down(self) -> None:
        down = self._control.down(self._allocation.nodes)
        if down:
            reason = "Slurm says down, failing, or that it does not answer"
            self._say(f"{', '.join(down)}: {reason}")
            for node in down:
                blame(self._job.config.folder, node, reason, kind="lost", launch=self._launch)
            raise UnfitNodesError(down)

    def _stop_if_excluded(self) -> None:
        run = self._job.config.folder
        found = {node: reason for node, reason in excluded(run).items() if node in self._allocation.nodes}
        for node, reason in found.items():
            self._say(f"{node} is left out: {reason}; 'gptdist nodes {run} --forgive {node}' takes it back")
        if found:
            raise UnfitNodesError(list(found))

    def _regroup(self, outcome: Outcome) -> None:
        """Note whose fault a failure was, and go elsewhere where it was a node's."""
        blame_for(self._job.config.folder, outcome, self._launch)
        self._stop_if_excluded()

    def _pause(self, seconds: float) -> None:
        """Wait so long, or until there is a request to stop."""
        deadline = time.monotonic() + seconds
        while not self._was_asked and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def _look_at_nodes(self) -> None:
        """Check that all nodes are as they have to be; inside a container nobody looks.

        Raises:
            LaunchError: something is wrong on all of them.
            UnfitNodesError: some are not fit.
        """
        self._stop_if_excluded()
        self._stop_if_down()
        if self._container is not None:
            return
        nodes, job = self._allocation.nodes, self._job
        port = self._allocation.port(1)
        verdict = self._control.check(nodes, port=port, config=job.config, config_path=job.config_path)
        # Where Slurm reaches nodes by other addresses than their names, so do the ranks.
        by_name = self._allocation.head == nodes[0]
        problems = [one for one in verdict.problems if by_name or one.check != "names"]
        unfit = sorted({one.host for one in problems if one.host is not None})
        if len(unfit) == len(nodes) or any(one.host is None for one in problems):
            raise LaunchError([one.line() for one in problems])
        for one in problems:
            self._say(one.line())
            if one.host is not None:
                blame(job.config.folder, one.host, f"{one.check}: {one.text}", kind="preflight")
        if unfit:
            raise UnfitNodesError(unfit)

    def _ask_to_stop(self, _: int, __: FrameType | None) -> None:
        self._was_asked = True
        if self._step is not None and self._step.poll() is None:
            self._step.send_signal(signal.SIGUSR1)  # which srun passes on to the agents

    def _again(self, without: Sequence[str] = ()) -> int:
        """See to it that the run goes on in another job, or on other nodes, and return the status."""
        allocation, config = self._allocation, self._job.config
        if allocation.element is not None:
            is_last = allocation.element == allocation.last_element
            for later in range(allocation.element + 1, (allocation.last_element or 0) + 1):
                if without:
                    self._control.exclude(f"{allocation.array_id}_{later}", without)
            self._say(
                f"step {newest_step(config.checkpoints_folder)} of {config.training.train_steps} is saved; "
                + ("the chain is at its end, the same command goes on" if is_last else "the next job goes on")
            )
            return EXIT_REQUEUE if is_last else EXIT_DONE
        vain = self._control.vain_ends(config.folder, allocation.job_id, newest_step(config.checkpoints_folder))
        if vain > config.launch.max_restarts:
            self._say(
                f"{vain} starts in a row came to no later checkpoint, launch.max_restarts is "
                f"{config.launch.max_restarts}; look at the cause, the same command goes on"
            )
            return EXIT_REQUEUE
        return self._control.requeue(allocation.job_id, self._say, without)


def is_done(config: RunConfig) -> bool:
    """Return whether the run has come to its last step, and all that was due there, by its ledger."""
    events = read_json_lines(config.folder / LEDGER_NAME)
    last = next((event for event in reversed(events) if event["event"] in {"start", "done"}), None)
    return last is not None and last["event"] == "done" and last["step"] >= config.training.train_steps


def step_command(
    job: Job,
    allocation: Allocation,
    log_folder: Path,
    *,
    attempt: int,
    container: Container | None = None,
    stop_after_seconds: float | None = None,
) -> NodeCommand:
    """Return the command that starts one agent on each node, and waits for them.

    Args:
        job: what the ranks run.
        allocation: where.
        log_folder: of this attempt.
        attempt: its number within the allocation; each meets on a port of its own.
        container: in what the agents run; default: in none.
        stop_after_seconds: when the ranks stop by themselves; default: by the config's time limit.
    """
    if container is not None:
        job = replace(job, python=container.python)
    rendezvous = Rendezvous(len(allocation.nodes), allocation.head, allocation.port(attempt))
    ranks = torchrun_command(job, log_folder, rendezvous=rendezvous, stop_after_seconds=stop_after_seconds)
    agent = agent_command(job, ranks, "--quiet")
    inside, before = _container_words(container, uses_gpu=job.config.training.device != "cpu")
    argv = [
        "srun",
        f"--nodes={len(allocation.nodes)}",
        f"--ntasks={len(allocation.nodes)}",
        "--ntasks-per-node=1",
        "--kill-on-bad-exit=1",
        f"--wait={WAIT_SECONDS}",
        "--export=ALL",
        *inside,
        "sh",
        "-c",
        _NODE_RANK,
        "sh",
        *before,
        *agent.argv,
    ]
    return NodeCommand(tuple(argv), agent.environment)


def _container_words(container: Container | None, *, uses_gpu: bool) -> tuple[list[str], list[str]]:
    """Return more options of srun, and what stands before the agent's command."""
    if container is None:
        return [], []
    folder = str(Path.cwd())
    if container.runtime == "pyxis":
        mounts = [f"--container-mounts={','.join(container.mounts)}"] if container.mounts else []
        return [f"--container-image={container.image}", *mounts, f"--container-workdir={folder}"], []
    binds = [word for mount in container.mounts for word in ("--bind", mount)]
    return [], ["apptainer", "exec", *(["--nv"] if uses_gpu else []), *binds, "--pwd", folder, container.image]


def main(arguments: list[str]) -> int:
    """Be the script of the job that this process is in; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m launch.slurm_job")
    parser.add_argument("--container-image")
    parser.add_argument("--container-runtime", default="pyxis")
    parser.add_argument("--container-mount", action="append", default=[])
    parser.add_argument("--container-python", default="python3")
    parser.add_argument("config", type=Path)
    parser.add_argument("words", nargs="*")
    options = parser.parse_args(arguments)
    control = Control()
    container = None
    if options.container_image is not None:
        mounts = tuple(options.container_mount)
        container = Container(options.container_image, options.container_runtime, mounts, options.container_python)
    try:
        allocation = Allocation.of(os.environ, control)
        job = read_job(options.config, options.words, nodes=len(allocation.nodes))
        return SlurmJob(job, allocation, control, container).run()
    except GptDistError as error:
        for line in error.problems:
            sys.stderr.write(f"gptdist: error: {line}\n")
        return EXIT_USER_ERROR


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
