"""A run on the hosts of a hostfile: one agent a host, by ssh, and a supervisor here that outlives hosts."""

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gptdist.config.run import RunConfig
from gptdist.errors import EXIT_REQUEUE, EXIT_STOPPED, LaunchError
from gptdist.telemetry.fence import FIRST_LAUNCH
from gptdist.telemetry.heartbeat import NODE_NAME
from launch.job import Job, Rendezvous, agent_command, torchrun_command
from launch.nodes import blame, blame_for, excluded
from launch.outcome import Outcome
from launch.preflight.check import check_nodes
from launch.preflight.reach import OverSsh
from launch.remote import REACHED, Agents, is_out_of_reach
from launch.requests import Requests
from launch.ssh import passed_on, remote_line, run_on_hosts, ssh_argv, trouble
from launch.supervisor import supervise

DEFAULT_PORT = 29500
"""torchrun's own."""

PORTS = 16
"""One attempt after the other takes the next of so many: the last one's may not be free yet."""

LOOK_SECONDS = 15.0


@dataclass(frozen=True)
class Hosts:
    """What a launch may use."""

    names: tuple[str, ...]
    """All of the hostfile, in its order."""

    nodes: int
    """On so many it runs; the others are spares."""

    min_nodes: int
    """On so few it goes on where hosts are lost and no spare is left."""

    head_port: int = DEFAULT_PORT

    def problems(self) -> list[str]:
        """Return why these numbers cannot be."""
        bad = []
        if self.names and self.nodes > len(self.names):
            bad.append(f"--nodes: {self.nodes} are more than the {len(self.names)} hosts of the hostfile; add some")
        if not 1 <= self.min_nodes <= max(1, self.nodes):
            bad.append(f"--min-nodes: must be from 1 to --nodes ({self.nodes}), got {self.min_nodes}")
        if not 1 <= self.head_port <= 2**16 - PORTS:
            bad.append(f"--head-port: must be from 1 to {2**16 - PORTS}, got {self.head_port}")
        return bad


def legal_size(config: RunConfig, hosts: Hosts, available: int) -> int | None:
    """Return the largest number of nodes that the run can be split over, of those that are ``available``."""
    for nodes in range(min(hosts.nodes, available), hosts.min_nodes - 1, -1):
        if not config.problems(nodes * config.launch.ranks_per_node):
            return nodes
    return None


def host_commands(
    job: Job,
    hosts: Sequence[str],
    log_folder: Path,
    *,
    head_port: int,
    first_launch: str | None = None,
    stop_after_seconds: float | None = None,
    environment: Sequence[tuple[str, str]] = (),
) -> dict[str, list[str]]:
    """Return what starts the agent of each host, in order; the first is the head.

    Args:
        job: what the ranks run.
        hosts: their names.
        log_folder: of the launch.
        head_port: the first of those that the head may use.
        first_launch: name of the supervisor's first; default: this one.
        stop_after_seconds: default: by the config's time limit.
        environment: variables for all, besides those that the launch sets.
    """
    number = re.search(r"\d+$", log_folder.name)
    port = head_port + (int(number[0]) - 1 if number else 0) % PORTS
    found = {}
    for rank, host in enumerate(hosts):
        place = Rendezvous(len(hosts), hosts[0], port, rank)
        ranks = torchrun_command(job, log_folder, rendezvous=place, stop_after_seconds=stop_after_seconds)
        own = {NODE_NAME: host, FIRST_LAUNCH: first_launch or log_folder.name}
        merged = {**dict(environment), **dict(ranks.environment), **own}
        agent = agent_command(
            job, replace(ranks, environment=tuple(merged.items())), "--end-with-stdin", "--supervised", "--quiet"
        )
        found[host] = ssh_argv(host, remote_line(agent, Path.cwd()))
    return found


class HostfileJob:
    """The hosts of a launch, from attempt to attempt."""

    def __init__(self, job: Job, hosts: Hosts, export: Sequence[str], say: Callable[[str], None]) -> None:
        """Choose the hosts of the first attempt.

        Args:
            job: what the ranks run.
            hosts: that may be used.
            export: names of variables that ranks get, too.
            say: shows a line to the user.

        Raises:
            LaunchError: too few are left.
        """
        self._job, self._hosts, self._say = job, hosts, say
        self._environment = passed_on(os.environ, export)
        self._run = job.config.folder
        left_out = excluded(self._run)
        self.usable = [name for name in hosts.names if name not in left_out]
        """Hosts that may be taken, in the hostfile's order."""

        for name in hosts.names:
            if name in left_out:
                say(f"{name} is left out: {left_out[name]}; 'gptdist nodes {self._run} --forgive {name}' takes it back")
        size = legal_size(job.config, hosts, len(self.usable))
        if size is None:
            raise LaunchError(
                [
                    f"{len(self.usable)} of {len(hosts.names)} hosts are left, --min-nodes is {hosts.min_nodes}; add "
                    f"hosts to the hostfile, or forgive some (gptdist nodes {self._run})"
                ]
            )
        self.chosen = self.usable[:size]
        """Those of the next attempt; the first is the head."""

        if size < hosts.nodes:
            say(f"begins on {size} of {hosts.nodes} nodes: {', '.join(self.chosen)}")
        self._first: str | None = None
        self._launch = ""

    def commands(self, log_folder: Path, stop_after_seconds: float | None = None) -> Mapping[str, list[str]]:
        """Return what starts the next attempt, by host."""
        return host_commands(
            self._job,
            self.chosen,
            log_folder,
            head_port=self._hosts.head_port,
            first_launch=self._first,
            stop_after_seconds=stop_after_seconds,
            environment=self._environment,
        )

    def shell_lines(self, log_folder: Path) -> list[str]:
        """Return the same as lines to paste into a shell."""
        return [shlex.join(argv) for argv in self.commands(log_folder).values()]

    def check(self) -> None:
        """Look at all hosts before anything is started.

        Raises:
            LaunchError: says what is wrong with which.
        """
        verdict = check_nodes(
            self.usable,
            OverSsh(Path.cwd()),
            port=self._hosts.head_port,
            config=self._job.config,
            config_path=self._job.config_path,
        )
        if not verdict.passed:
            raise LaunchError([problem.line() for problem in verdict.problems])

    def run(self) -> int:
        """Train to the end, with restarts, and return the exit status; see ``gptdist.errors``."""
        with Requests() as requests:

            def attempt(log_folder: Path, stop_after_seconds: float | None) -> Outcome:
                if requests.numbers:
                    return Outcome(EXIT_STOPPED if requests.by_person else EXIT_REQUEUE, 0)
                self._first = self._first or log_folder.name
                self._launch = log_folder.name
                commands = self.commands(log_folder, stop_after_seconds)
                return Agents(commands, log_folder, Path.cwd(), requests.letters).wait()

            return supervise(self._job.config, attempt, self._say, regroup=self.regroup, pause=requests.pause)

    def regroup(self, outcome: Outcome) -> str | None:
        """Choose the hosts of the next attempt after one that failed; return why there are none."""
        before = list(self.chosen)
        gone = {one.node for one in outcome.failures if one.kind == "lost"}
        if gone == set(before) and len(before) > 1:
            return f"none of {', '.join(before)} can be reached any more; look at the network of this machine first"
        blame_for(self._run, outcome, self._launch)
        self.usable = [name for name in self.usable if name not in gone]
        while True:
            doubted = excluded(self._run)
            # A host on which ranks die may do better than none at all; one that is lost cannot.
            self.usable.sort(key=lambda name: name in doubted)
            size = legal_size(self._job.config, self._hosts, len(self.usable))
            if size is None:
                return (
                    f"cannot go on: {len(self.usable)} of {len(self._hosts.names)} hosts are left, and --min-nodes is "
                    f"{self._hosts.min_nodes}"
                )
            self.chosen = self.usable[:size]
            missing = self._out_of_reach([name for name in self.chosen if name not in before])
            if not missing:
                break
            self.usable = [name for name in self.usable if name not in missing]
        self._tell(before)
        return None

    def _out_of_reach(self, names: Sequence[str]) -> list[str]:
        """Return which of these cannot be reached, and note it."""
        line = remote_line(REACHED, Path.cwd())
        answers = run_on_hosts(names, lambda host: ssh_argv(host, line), stdin="", timeout_seconds=LOOK_SECONDS)
        missing = [answer for answer in answers if is_out_of_reach(answer)]
        for answer in missing:
            reason = trouble(answer, REACHED, Path.cwd()) or ""
            self._say(reason)
            blame(self._run, answer.host, reason, kind="lost", launch=self._launch)
        return [answer.host for answer in missing]

    def _tell(self, before: Sequence[str]) -> None:
        left, new = [name for name in before if name not in self.chosen], [n for n in self.chosen if n not in before]
        if not left:
            return
        instead = f", with {', '.join(new)} instead" if new else ""
        nodes, ranks = len(self.chosen), len(self.chosen) * self._job.config.launch.ranks_per_node
        size = "as before" if nodes == len(before) else f"instead of {len(before)}"
        self._say(
            f"without {', '.join(left)}{instead}: goes on from the newest checkpoint on {_count(nodes, 'node')} "
            f"({_count(ranks, 'rank')}) {size}"
        )


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
