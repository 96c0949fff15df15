"""Every side-by-side comparison, one after the other, and the page of results.

``python -m benchmarks.run_all [--only NAME …] [--long] [--quick] [--from DIR]``. Each comparison is a process of its
own; what it finds is kept in a folder that git ignores, a file each, and ``benchmarks/RESULTS.md`` is made of all that
are there. So one that is run again alone replaces its own figures and no others. One that fails, or lacks what it
stands beside, is a row that says why, and the next one runs.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.catalog import ENTRIES, Entry
from benchmarks.comparison import read
from benchmarks.machine import PAGE_NAME, REPOSITORY, commit, machine, our_versions, their_versions
from benchmarks.peer_environment import PYTHON, missing_text
from benchmarks.record import Record, read_records
from benchmarks.results_page import page

WORK = REPOSITORY / "benchmarks" / "work"
"""Ignored by git: records, logs, the corpus, the peers' environment."""

_PATIENCE = 4.0
"""Times what a comparison should take, and ten minutes, after which it is ended."""


@dataclass(frozen=True)
class Places:
    """Where a run of the list reads and writes."""

    records: Path
    work: Path
    peers: Path
    """Interpreter of the peers' environment, there or not."""

    is_quick: bool

    @property
    def corpus(self) -> Path:
        """The pages to measure on."""
        return self.work / ("corpus-quick" if self.is_quick else "corpus")


def command_of(entry: Entry, places: Places) -> list[str]:
    """Return the words behind ``python``, without ``--json``; ``--peers`` goes where there is no interpreter."""
    known = {"{corpus}": places.corpus, "{work}": places.work, "{peers}": places.peers}
    words: list[str] = []
    for word in entry.arguments:
        if word == "{peers}" and not places.peers.exists():
            words.pop()  # its option
            continue
        for name, path in known.items():
            word = word.replace(name, str(path))  # noqa: PLW2901  # each stands for one path
        words.append(word)
    if entry.needs_corpus and places.peers.exists():
        words += ["--peers", str(places.peers)]
    return ["-m", entry.module, *words, *(["--quick"] if places.is_quick else [])]


def shown(words: Sequence[str]) -> str:
    """Return a command as the page shows it: paths of this repository from its folder on."""
    return " ".join(["python", *(word.replace(f"{REPOSITORY}{os.sep}", "") for word in words)])


def run_entry(entry: Entry, places: Places) -> Record:
    """Run one comparison and return its record."""
    words, now, load = command_of(entry, places), datetime.now(UTC), os.getloadavg()[0]
    answer = places.records / f"{entry.name}.answer"
    answer.unlink(missing_ok=True)
    begin = time.perf_counter()
    problem = _run([*words, "--json", str(answer)], places.records / f"{entry.name}.log", _limit_seconds(entry))
    seconds = time.perf_counter() - begin
    found = read(answer) if answer.exists() else []
    answer.unlink(missing_ok=True)
    if not problem and not found:
        problem = "it ended without a figure"
    return Record(
        entry.name,
        shown(words),
        now.isoformat(timespec="seconds"),
        seconds,
        commit(),
        load,
        machine(),
        our_versions(),
        their_versions(places.peers) if entry.peers else {},
        places.is_quick,
        problem,
        found,
    )


def _limit_seconds(entry: Entry) -> float:
    return 600 + 60 * _PATIENCE * entry.minutes


def _run(words: Sequence[str], log: Path, limit_seconds: float) -> str:
    """Run Python with its output in a log; return why it failed, empty if it did not."""
    environment = {**os.environ, "TQDM_DISABLE": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=REPOSITORY,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=limit_seconds)
        except subprocess.TimeoutExpired:
            return f"ended after {limit_seconds:g} s"
        finally:
            _end(process)
    if not status:
        return ""
    return f"status {status}: {_cause(log.read_text(encoding='utf-8', errors='replace'))}"


def _cause(output: str) -> str:
    """Return the line that says why: the first error of a traceback, else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return ([*errors, *lines[-1:]] or ["no output"])[0][:300]


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End what a comparison started and left: all of its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # nothing is left, as it should be
        return
    finally:
        process.wait()


def run_entries(entries: Sequence[Entry], places: Places) -> list[Record]:
    """Run comparisons one after the other, each recorded when it is done."""
    places.records.mkdir(parents=True, exist_ok=True)
    records = []
    for number, entry in enumerate(entries, start=1):
        print(f"[{number}/{len(entries)}] {entry.name}: about {entry.minutes:g} min", flush=True)
        without = _make_corpus(places) if entry.needs_corpus else ""
        if without:
            record = Record(entry.name, shown(command_of(entry, places)), _today(), problem=without)
        else:
            record = run_entry(entry, places)
        record.write(places.records)
        for one in record.comparisons:
            print(one.line())
        print(f"  {record.problem or 'done'}, {record.seconds:,.0f} s", flush=True)
        records.append(record)
    return records


def _today() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _make_corpus(places: Places) -> str:
    """Have the corpus, unless it is there; return why it cannot be had."""
    if (places.corpus / "text.jsonl").exists():
        return ""
    words = ["-m", "benchmarks.corpus", str(places.corpus), "--downloads", str(places.work / "debian")]
    return _run([*words, *(["--quick"] if places.is_quick else [])], places.records / "corpus.log", 1200)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run_all", description="Run every comparison.")
    names = [entry.name for entry in ENTRIES]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--long", action="store_true", help="those too that take an hour")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: does everything run")
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="DIR", help="run nothing: the page of these records"
    )
    parser.add_argument("--work", type=Path, default=WORK, metavar="DIR", help="records, corpus (default: %(default)s)")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help=f"default: {PAGE_NAME}; with --quick beside the records"
    )
    parser.add_argument("--peers", type=Path, default=PYTHON, metavar="PYTHON", help="interpreter that has other tools")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for and write the page; return 1 if a comparison did not run to its end."""
    arguments = _parser().parse_args(argv)
    work = arguments.work.absolute()
    records_folder = work / ("quick" if arguments.quick else "records")
    places = Places(records_folder, work, arguments.peers.absolute(), arguments.quick)
    chosen = [entry for entry in ENTRIES if entry.name in arguments.only] if arguments.only else ENTRIES
    chosen = [entry for entry in chosen if arguments.only or arguments.long or not entry.is_long]
    failed: list[Record] = []
    if arguments.source is None:
        text = missing_text(places.peers, {name for entry in chosen for name in entry.peers})
        minutes = sum(entry.minutes for entry in chosen)
        print(f"{len(chosen)} comparisons, about {minutes:.0f} minutes{text}", flush=True)
        failed = [record for record in run_entries(chosen, places) if record.problem]
    elif not list(arguments.source.glob("*.json")):
        print(f"--from: {arguments.source}: no records there; run `make bench` first", file=sys.stderr)
        return 2
    target = arguments.page or (records_folder / "RESULTS.md" if arguments.quick else REPOSITORY / PAGE_NAME)
    target.write_text(page(read_records(arguments.source or records_folder)), encoding="utf-8")
    print(f"wrote {target}")
    for record in failed:
        print(f"{record.name}: {record.problem}; its log: {records_folder / record.name}.log", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what runs is in a session of its own: it is ended too
    raise SystemExit(main())
