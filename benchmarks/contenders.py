"""Training programs side by side: each is built and warmed up once in its own processes, then all take turns.

A contender answers a line ``N`` on standard input by doing N steps, and prints a JSON line with the seconds they took.
While one works the others wait for input, so that every round compares them under the same weather.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any


@dataclass
class Contender:
    """One program on ``ranks`` processes."""

    name: str
    argv: Sequence[str]
    ranks: int = 1
    threads: int = 2
    joins: bool = True
    """Whether it makes a process group, and needs to know its place; some libraries make one of their own if told."""

    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Of a step, one value a round."""

    answer: dict[str, Any] = field(default_factory=dict)
    """The last one, without its seconds."""

    def start(self, scratch: Path) -> None:
        """Start the processes and wait until they are warm."""
        store = scratch / f"store-{self.name.replace(' ', '-').replace('/', '-')}"
        self.processes += start_ranks(
            self.argv, ranks=self.ranks, threads=self.threads, store=store if self.joins else None
        )
        self.round(1)
        self.seconds.clear()

    def round(self, steps: int) -> None:
        """Do ``steps`` steps and note the seconds of one."""
        self.answer, *_ = ask(self.name, self.processes, steps)
        self.seconds.append(self.answer.pop("seconds") / steps)

    def stop(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.kill()
            process.wait()

    @property
    def step_seconds(self) -> float:
        """Median over the rounds."""
        return median(self.seconds)


def start_ranks(argv: Sequence[str], *, ranks: int, threads: int, store: Path | None) -> "list[subprocess.Popen[str]]":
    """Start a program on each rank; they meet at the file ``store``, unless it is None."""
    processes = []
    for rank in range(ranks):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "BENCHMARK_STORE": f"file://{store}"}
        environment = {
            **os.environ,
            **({name: str(value) for name, value in place.items()} if store is not None else {}),
            "OMP_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
        }
        processes.append(
            subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, bufsize=1)
        )
    return processes


def ask(name: str, processes: "Sequence[subprocess.Popen[str]]", question: Any) -> list[dict[str, Any]]:
    """Send a line of JSON to every rank, and return what each answers."""
    for process in processes:
        assert process.stdin is not None, "started with a pipe"
        print(json.dumps(question), file=process.stdin, flush=True)
    return [_answer(name, process) for process in processes]


def _answer(name: str, process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None, "started with a pipe"
    for line in process.stdout:
        if line.startswith('{"seconds"'):  # libraries print on standard output too
            return dict(json.loads(line))
    raise SystemExit(f"{name}: ended with status {process.wait()} and no answer; its error is above")


def take_turns(contenders: Sequence[Contender], scratch: Path, *, rounds: int, steps: int) -> None:
    """Start all, then let each do ``steps`` steps in every round; every other round goes backwards."""
    try:
        for contender in contenders:
            contender.start(scratch)
        for number in range(rounds):
            for contender in contenders if number % 2 == 0 else reversed(contenders):
                contender.round(steps)
    finally:
        for contender in contenders:
            contender.stop()


def serve(work: Callable[[Any], dict[str, Any]]) -> None:
    """Answer the lines on standard input until it is closed; ``work(question)`` returns what to print."""
    for line in sys.stdin:
        print(json.dumps(work(json.loads(line))), flush=True)
