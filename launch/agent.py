"""Looks after the ranks of one node: ``python -m launch.agent … -- <command that starts them>``.

It starts torchrun, reads the ranks' heartbeats, passes signals on, ends ranks that make no progress after taking their
stacks, and says with its exit status what became of them; see ``gptdist.errors``. It works without torch.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType

from gptdist.device.parent_death import die_with_parent
from gptdist.durable import write_whole
from gptdist.errors import TrainingError
from gptdist.telemetry.fence import make_current, successor
from gptdist.telemetry.heartbeat import ENDED, HEARTBEAT_DIR, Beat, node_folder, node_name, read_beats
from gptdist.telemetry.rank_log import LOG_DIR, STACKS_SIGNAL, Failure, stacks_path
from launch.job import NodeCommand
from launch.outcome import Outcome, failures_on, leave_outcome, outcome_of
from launch.watch import SLOW_SECONDS, SLOW_STEPS, Limits, RankView, culprit, stalled, straggler, views

POLL_SECONDS = 0.2
TELL_SECONDS = 5.0
"""How often a node tells the others where its ranks are."""

STACKS_SECONDS = 2.0
"""How long ranks get to write their stacks."""

KILL_SECONDS = 10.0
REQUESTS = {"T": signal.SIGTERM, "I": signal.SIGINT, "U": signal.SIGUSR1}
"""Letters on an agent's standard input that ask for a stop, and the signals that they stand for."""

GIVE_UP = "K"
"""Another letter: kill the ranks."""

SIGN_OF_LIFE, SIGN_SECONDS = b"\0", 2.0
_BEATS = "beats_"

Say = Callable[[str], None]


class Agent:
    """Runs the ranks of this node to their end."""

    def __init__(self, command: NodeCommand, limits: Limits, say: Say, *, is_supervised: bool = True) -> None:
        """Start nothing yet.

        Args:
            command: starts the ranks; its environment names the folders of logs and heartbeats.
            limits: how long ranks may be silent.
            say: shows a line to the user.
            is_supervised: whoever started this has made its launch the current one.

        Raises:
            TrainingError: the folder of heartbeats is another user's.
        """
        environment = dict(command.environment)
        self._command, self._limits, self._say = command, limits, say
        self._logs, self._beats = Path(environment[LOG_DIR]), node_folder(environment[HEARTBEAT_DIR])
        self._node = node_name()
        self._is_supervised = is_supervised
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: list[tuple[float, signal.Signals]] = []
        self._gives_up = False
        self._told = 0.0
        self._looked: list[RankView] = []
        self._looked_at = 0.0

    def run(self) -> Outcome:
        """Start the ranks, wait for their end, and return how that was."""
        self._logs.mkdir(parents=True, exist_ok=True)
        _make_private(self._beats)
        if not self._is_supervised:
            make_current(self._logs)
        try:
            with self._taking_signals():
                process = subprocess.Popen(
                    self._command.argv,
                    env={**os.environ, **dict(self._command.environment)},
                    preexec_fn=partial(die_with_parent, os.getpid()),  # noqa: PLW1509 - takes no lock
                )
                self._process = process
                for _, number in self._asked:  # before there was anything to pass it to
                    process.send_signal(number)
                failure = self._watch(process)
            beats = read_beats(self._beats)
            failures = failures_on(self._logs, self._node, beats) if failure is None else [failure]
            outcome = outcome_of(beats, failures, process.wait(), was_asked=bool(self._asked))
            leave_outcome(self._logs, self._node, outcome)
            return outcome
        finally:
            shutil.rmtree(self._beats, ignore_errors=True)

    def ask(self, number: signal.Signals) -> None:
        """Pass on what asks for a stop, so that the ranks can save; from any thread."""
        self._asked.append((time.monotonic(), number))
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _is_too_late(self) -> bool:
        """Tell whether the ranks should have ended; torchrun kills them itself, unless it hangs."""
        patience = self._limits.shutdown_seconds + KILL_SECONDS
        return bool(self._asked) and time.monotonic() - self._asked[0][0] > patience

    def give_up(self) -> None:
        """Have the ranks killed, as others that they need are gone; from any thread."""
        self._gives_up = True

    @contextlib.contextmanager
    def _taking_signals(self) -> Iterator[None]:
        def forward(number: int, _: FrameType | None) -> None:
            self.ask(signal.Signals(number))

        # On Ctrl-C the terminal signals the whole group: torchrun has it already.
        before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}
        for number in (signal.SIGTERM, signal.SIGUSR1):
            before[number] = signal.signal(number, forward)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _watch(self, process: subprocess.Popen[bytes]) -> Failure | None:
        """Wait until torchrun has ended; return a stall if that is why."""
        started = time.monotonic()
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            ranks = views(read_beats(self._beats), self._node)
            if self._gives_up or self._is_too_late():
                _end(process, [one.beat for one in ranks])
                return None
            self._tell(ranks)
            self._name_the_slow(ranks)
            has_begun = bool(ranks) or time.monotonic() - started < self._limits.startup_seconds
            if not has_begun or stalled(ranks, self._limits):
                return self._end_stalled(process, ranks)
        return None

    def _tell(self, ranks: list[RankView], *, now: bool = False) -> None:
        """Tell the other nodes where this one's ranks are."""
        if not now and time.monotonic() - self._told < TELL_SECONDS:
            return
        self._told = time.monotonic()
        with contextlib.suppress(OSError):
            # A host that was cut off may still see the shared folder: its ranks would wait for others, or write on.
            self._gives_up = self._gives_up or successor(self._logs) is not None
        content = {"node": self._node, "time": time.time(), "ranks": [[one.beat.tree(), one.seconds] for one in ranks]}
        with contextlib.suppress(OSError):  # a full disk is no reason to end a run
            write_whole(self._logs / f"{_BEATS}{self._node}.json", json.dumps(content).encode())

    def _name_the_slow(self, ranks: list[RankView]) -> None:
        before, steps = self._looked, min((one.beat.step for one in ranks), default=0)
        if before and steps - min(one.beat.step for one in before) < SLOW_STEPS:
            return
        if time.monotonic() - self._looked_at < SLOW_SECONDS:
            return
        self._looked_at = time.monotonic()
        everyone = read_all_views(self._logs, self._node, ranks)
        slow = straggler(before, everyone) if before else None
        self._looked = everyone
        if slow is not None and slow.node == self._node:
            self._say(slow.words())

    def _end_stalled(self, process: subprocess.Popen[bytes], ranks: list[RankView]) -> Failure:
        """Take everybody's stacks, end the ranks, and say whose fault it was."""
        self._tell(ranks, now=True)
        for one in ranks:
            _send(one.beat, STACKS_SIGNAL)
        time.sleep(STACKS_SECONDS)
        everyone = read_all_views(self._logs, self._node, ranks)
        _end(process, [one.beat for one in ranks])
        if not everyone:
            limit = self._limits.startup_seconds
            text = f"no rank has begun within {limit:g} s (launch.startup_seconds); see {self._logs}"
            return Failure("stalled", None, self._node, time.time(), 0, "start", text)
        guilty = culprit(everyone)
        limit, key = self._limits.of(guilty.beat)
        lines = [f"no progress within {limit:g} s (launch.{key}); the ranks were:"]
        lines += [f"  {one.words()}" for one in everyone]
        if guilty.node == self._node:
            with contextlib.suppress(OSError):
                lines += [stacks_path(self._logs, guilty.beat.rank).read_text(encoding="utf-8").rstrip()]
        lines += [f"stacks of all ranks: {self._logs}/stacks_*.txt"]
        beat = guilty.beat
        return Failure("stalled", beat.rank, guilty.node, time.time(), beat.step, beat.phase, "\n".join(lines))


def read_all_views(logs: Path, node: str, ranks: list[RankView]) -> list[RankView]:
    """Return where the ranks of all nodes are, those of this ``node`` as they are now, by rank."""
    found = list(ranks)
    for path in logs.glob(f"{_BEATS}*.json"):
        try:
            told = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if told["node"] != node:
            late = time.time() - told["time"]
            found += [RankView(Beat.of_tree(tree), told["node"], seconds + late) for tree, seconds in told["ranks"]]
    return sorted(found, key=lambda one: one.beat.rank)


def _make_private(folder: Path) -> None:
    """Make a folder that nobody else can have put anything into."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be made ({error}); remove what is there, or set TMPDIR") from None


def _send(beat: Beat, number: signal.Signals) -> None:
    if beat.phase not in ENDED:
        with contextlib.suppress(ProcessLookupError):
            os.kill(beat.pid, number)


def _end(process: subprocess.Popen[bytes], beats: list[Beat]) -> None:
    """End torchrun, with which its ranks die, and make sure of those."""
    process.kill()
    for beat in beats:
        _send(beat, signal.SIGKILL)
    process.wait(KILL_SECONDS)


def show_failure(outcome: Outcome, logs: Path, say: Say) -> None:
    """Show the first failure, if there is one, and where the rest is."""
    first = outcome.first_failure
    if first is None:
        return
    if first.kind == "refused":
        say(first.text)
        return
    say(f"{first.heading()}:\n{first.text}")
    more = len(outcome.failures) - 1
    others = f"; {more} more failed after it" if more else ""
    say(f"logs of all ranks: {logs}{others}")


def _obey_stdin(agent: Agent) -> None:
    """Do what letters on standard input say; at its end, whoever held the other end is gone: stop as by SIGTERM."""

    def listen() -> None:
        while letters := os.read(0, 1024).decode(errors="replace"):
            for letter in letters:
                if letter == GIVE_UP:
                    agent.give_up()
                elif letter in REQUESTS:
                    agent.ask(REQUESTS[letter])
        agent.ask(signal.SIGTERM)

    threading.Thread(target=listen, daemon=True, name="requests").start()


def _give_signs_of_life() -> None:
    """Write a NUL byte now and then, which no text has: a host that was cut off would only be silent."""

    def write() -> None:
        with contextlib.suppress(OSError):  # whoever listened is gone
            while True:
                os.write(1, SIGN_OF_LIFE)
                time.sleep(SIGN_SECONDS)

    threading.Thread(target=write, daemon=True, name="signs of life").start()


def main(arguments: list[str]) -> int:
    """Look after the ranks that ``arguments`` start; return the status."""
    parser = argparse.ArgumentParser(prog="python -m launch.agent")
    for name in ("stall", "startup", "shutdown"):
        parser.add_argument(f"--{name}-seconds", type=float, required=True)
    parser.add_argument("--ranks", type=int, required=True, help="that are started here")
    parser.add_argument("--end-with-stdin", action="store_true", help="end when standard input does, and obey letters")
    parser.add_argument("--supervised", action="store_true", help="whoever listens wants NUL bytes as signs of life")
    parser.add_argument("--quiet", action="store_true", help="leave it to the launcher to show a failure")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    environment = {name: os.environ[name] for name in (LOG_DIR, HEARTBEAT_DIR)}
    if "OMP_NUM_THREADS" not in os.environ:
        environment["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // options.ranks))
    command = NodeCommand(tuple(options.command), tuple(environment.items()))
    limits = Limits(options.stall_seconds, options.startup_seconds, options.shutdown_seconds)

    def say(line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    agent = Agent(command, limits, say, is_supervised=options.supervised)
    if options.end_with_stdin:
        _obey_stdin(agent)
    if options.supervised:
        _give_signs_of_life()
    outcome = agent.run()
    if not options.quiet:
        show_failure(outcome, Path(os.environ[LOG_DIR]), say)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
