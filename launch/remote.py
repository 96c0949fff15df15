"""Agents on other hosts, by ssh: started, listened to, asked to stop, and ended together when one of them is lost.

A host that is switched off or cut off says nothing of it. Its agent gives a sign of life every other second over the
connection that is there anyway; when they stay away, one look decides whether the host can still be reached.
"""

import contextlib
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from gptdist.device.parent_death import die_with_parent
from gptdist.errors import EXIT_FAILED, EXIT_REQUEUE, EXIT_STALLED, EXIT_USER_ERROR
from gptdist.telemetry.rank_log import Failure
from launch.agent import GIVE_UP, SIGN_OF_LIFE, read_all_views
from launch.job import NodeCommand
from launch.outcome import Outcome, joined, read_outcomes
from launch.ssh import EXIT_SSH, Answer, passed_on, remote_line, run_on_hosts, ssh_argv, trouble

POLL_SECONDS = 0.2
SILENT_SECONDS = 6.0
"""After so long without a sign of life a host is looked at."""

MUTE_SECONDS = 60.0
"""After so long its agent counts as lost, though the host can be reached; likewise for its first sign."""

FOLLOW_SECONDS = 5.0
"""How long the ranks on other hosts get to fail by themselves once one has, and to say how."""

END_SECONDS = 8.0
LOOK_SECONDS = 15.0
_FAILING = (EXIT_FAILED, EXIT_STALLED, EXIT_USER_ERROR)
REACHED = NodeCommand(("true",), ())
"""Done by every host that can be reached."""

Letters = Callable[[], str]
"""Returns the requests to stop that have come since it was last called, as letters of the agents' standard input."""


class RemoteAgent:
    """The connection to one host."""

    def __init__(self, host: str, argv: Sequence[str], log: Path) -> None:
        """Start it, with all that it says in the file ``log``."""
        self.host = host
        self.log = log.open("ab", buffering=0)
        self.heard: float | None = None
        """When it last gave a sign of life, by the monotonic clock."""

        self.begun = time.monotonic()
        self.cleared = 0.0
        """When a look last found the host in order."""

        self.said: deque[bytes] = deque(maxlen=50)
        self.lost: str | None = None
        """Why it is."""

        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,  # Ctrl-C is for us to pass on
            preexec_fn=partial(die_with_parent, os.getpid()),  # noqa: PLW1509 - takes no lock that a thread could hold
        )

    def send(self, letter: str) -> None:
        """Have the agent do what ``letter`` stands for."""
        assert self.process.stdin is not None, "it is a pipe"
        with contextlib.suppress(OSError):  # it has ended
            os.write(self.process.stdin.fileno(), letter.encode())

    def take(self, content: bytes, *, is_error: bool) -> bytes:
        """Note what has come from there; return what of it is text."""
        self.heard = time.monotonic()
        text = content.replace(SIGN_OF_LIFE, b"")
        if text:
            with contextlib.suppress(OSError):  # a full disk is no reason to end a run
                self.log.write(text)
            if is_error:
                self.said.append(text)
        return text

    @property
    def errors(self) -> str:
        """The last that it has said on standard error."""
        return b"".join(self.said).decode(errors="replace").strip()

    @property
    def silent_seconds(self) -> float:
        """How long there was no sign of it."""
        return time.monotonic() - max(self.begun if self.heard is None else self.heard, self.begun)


class Agents:
    """The agents of one attempt."""

    def __init__(self, commands: Mapping[str, Sequence[str]], logs: Path, folder: Path, letters: Letters) -> None:
        """Start all.

        Args:
            commands: to start the agent of each host, node 0's first.
            logs: folder of the launch.
            folder: in which commands are run on the hosts.
            letters: gives requests to stop.
        """
        logs.mkdir(parents=True, exist_ok=True)
        self._logs, self._folder, self._letters = logs, folder, letters
        self._all = {host: RemoteAgent(host, argv, logs / f"node_{host}.log") for host, argv in commands.items()}
        self._selector = selectors.DefaultSelector()
        for agent in self._all.values():
            for stream, is_error in ((agent.process.stdout, False), (agent.process.stderr, True)):
                assert stream is not None, "it is a pipe"
                self._selector.register(stream, selectors.EVENT_READ, (agent, is_error))
        self._looker = ThreadPoolExecutor(1)
        self._look: Future[list[Answer]] | None = None
        self._was_asked = False
        self._given_up: set[str] = set()

    def wait(self) -> Outcome:
        """Wait until all have ended, or the rest are to be ended because of one; return how that was."""
        failed_at: float | None = None
        try:
            while self._running():
                self._listen(POLL_SECONDS)
                for letter in self._letters():
                    self._was_asked = True
                    for agent in self._running():
                        agent.send(letter)
                self._look_for_lost()
                if any(agent.lost for agent in self._all.values()):
                    break
                if failed_at is None and any(one.process.poll() in {*_FAILING, EXIT_SSH} for one in self._all.values()):
                    failed_at = time.monotonic()
                if failed_at is not None and time.monotonic() - failed_at > FOLLOW_SECONDS:
                    break
            self._end()
            self._find_lost()
            self._reap()
        finally:
            self._close()
        return self._outcome()

    def _running(self) -> list[RemoteAgent]:
        return [agent for agent in self._all.values() if agent.process.poll() is None]

    def _listen(self, seconds: float) -> None:
        """Show what agents say: rank 0 speaks on node 0, of the others come warnings only."""
        if not self._selector.get_map():
            time.sleep(seconds)
        for key, _ in self._selector.select(seconds):
            agent, is_error = key.data
            content = os.read(key.fd, 65536)
            if not content:
                self._selector.unregister(key.fileobj)
            text = agent.take(content, is_error=is_error) if content else b""
            if text and agent.host not in self._given_up:
                with contextlib.suppress(OSError):  # nobody looks any more
                    os.write(2 if is_error else 1, text)

    def _look_for_lost(self) -> None:
        """Have a look at hosts that are silent, beside the rest; note which are lost."""
        if self._look is not None and self._look.done():
            for answer in self._look.result():
                agent, reason = self._all[answer.host], trouble(answer, REACHED, self._folder)
                if reason is not None and is_out_of_reach(answer):
                    agent.lost = reason
                else:
                    agent.cleared = time.monotonic()
            self._look = None
        for agent in self._running():
            if agent.silent_seconds > MUTE_SECONDS:
                agent.lost = f"{agent.host}: its agent has said nothing for {MUTE_SECONDS:g} s, but the host is there"
        silent = [
            agent.host
            for agent in self._running()
            if agent.silent_seconds > SILENT_SECONDS and time.monotonic() - agent.cleared > SILENT_SECONDS
        ]
        if silent and self._look is None:
            self._look = self._looker.submit(self._ask, silent)

    def _ask(self, hosts: Sequence[str], command: NodeCommand = REACHED) -> list[Answer]:
        line = remote_line(command, self._folder)
        return run_on_hosts(hosts, lambda host: ssh_argv(host, line), stdin="", timeout_seconds=LOOK_SECONDS)

    def _end(self) -> None:
        """Have those that are still there end, as the job cannot go on."""
        for agent in self._running():
            self._given_up.add(agent.host)
            if agent.lost:
                agent.process.kill()
            else:
                agent.send(GIVE_UP)
        deadline = time.monotonic() + END_SECONDS
        while self._running() and time.monotonic() < deadline:
            self._listen(POLL_SECONDS)
        for agent in self._running():
            agent.process.kill()
            agent.process.wait()
        while self._selector.get_map() and self._selector.select(0):
            self._listen(0)  # what was said last

    def _without_outcome(self) -> list[RemoteAgent]:
        known = read_outcomes(self._logs)
        return [agent for agent in self._all.values() if agent.host not in known]

    def _find_lost(self) -> None:
        """Look at hosts whose agents have left no word."""
        hosts = [agent.host for agent in self._without_outcome() if not agent.lost]
        for answer in self._ask(hosts) if hosts else []:
            if is_out_of_reach(answer):
                self._all[answer.host].lost = trouble(answer, REACHED, self._folder)

    def _reap(self) -> None:
        """Make sure that no rank is left where the agent may not have done so."""
        hosts = [agent.host for agent in self._without_outcome() if not agent.lost]
        command = NodeCommand((sys.executable, "-m", "launch.reap", str(self._logs)), passed_on(os.environ))
        for answer in self._ask(hosts, command) if hosts else []:
            reason = trouble(answer, command, self._folder)
            if reason is not None:
                self._all[answer.host].lost = f"{reason}; what is left of the launch there could not be ended"

    def _close(self) -> None:
        for agent in self._all.values():
            agent.process.kill()
            agent.process.wait()
            agent.log.close()
            for stream in (agent.process.stdin, agent.process.stdout, agent.process.stderr):
                assert stream is not None, "it is a pipe"
                with contextlib.suppress(OSError):
                    stream.close()
        self._selector.close()
        self._looker.shutdown(wait=False, cancel_futures=True)

    def _outcome(self) -> Outcome:
        found = read_outcomes(self._logs)
        known = [found[host] for host in self._all if host in found]
        step = min((one.step for one in known), default=0)
        for host, agent in self._all.items():
            failure = self._failure(agent, found.get(host), step)
            if failure is not None:
                known.append(Outcome(EXIT_FAILED, step, (failure,)))
        together = joined(known)
        first = together.first_failure
        if self._was_asked and first is not None and first.kind == "killed":
            return Outcome(EXIT_REQUEUE, together.step, together.failures)  # it was not in time
        return together

    def _failure(self, agent: RemoteAgent, outcome: Outcome | None, step: int) -> Failure | None:
        """Return what is wrong with a host beyond what its agent has said."""
        status = agent.process.returncode
        now = time.time()
        heard = now - agent.silent_seconds
        phase = next((one.beat.phase for one in read_all_views(self._logs, "", []) if one.node == agent.host), "start")
        if agent.lost:
            return Failure("lost", None, agent.host, heard, step, phase, agent.lost)
        if agent.host in self._given_up or (outcome is not None and (outcome.failures or status not in _FAILING)):
            return None
        said = "\n".join(agent.errors.splitlines()[-20:])
        if outcome is None and status == EXIT_SSH:
            text = f"{said}\nits agent was killed, or the connection to it broke; the host is there".strip()
            return Failure("killed", None, agent.host, heard, step, phase, text)
        if status == 0:
            return None
        return Failure("error", None, agent.host, heard, step, phase, said or f"its agent ended with status {status}")


def is_out_of_reach(answer: Answer) -> bool:
    """Tell whether ssh did not get to a host; one that is only slow is there."""
    return answer.status == EXIT_SSH and "banner" not in answer.errors
