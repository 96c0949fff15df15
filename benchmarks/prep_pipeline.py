"""The whole way from HTML to shards: where its CPU time goes, how it scales, what it holds in memory.

``python -m benchmarks.prep_pipeline shares WARC OUT`` is run in a process of its own by ``measure``.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import resource
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastwarc.warc import ArchiveIterator

from benchmarks.comparison import Comparison
from benchmarks.side_by_side import Corpus, Finished, run_ours

_START_UP_PAGES = 300
PARTS = ("extract", "step tokenize")
"""What the pipeline is for; everything else is overhead."""


def measure(corpus: Corpus, peers: str | None) -> list[Comparison]:
    """Return the scaling as a ratio; print shares of CPU time and memory."""
    shares = _fresh(corpus, "shares", 1)
    cpu = shares.result["cpu_seconds"]
    print(f"whole pipeline, {shares.result['pages']:,} pages: {cpu:.1f} CPU seconds without start-up")
    for part, seconds in sorted(shares.result["parts"].items(), key=lambda item: -item[1]):
        print(f"  {part:<20} {seconds:8.2f} s  {seconds / cpu:6.1%}")
    inside = sum(shares.result["parts"].get(part, 0.0) for part in PARTS) / cpu
    print(f"  inside extraction and tokenization: {inside:.1%} (target 80 %)")
    order = (2, 1) if corpus.is_backwards else (1, 2)
    walls = {workers: _fresh(corpus, "run", workers) for workers in order}
    for workers, run in walls.items():
        print(f"  {workers} workers: {run.result['seconds']:.1f} s, largest process {run.result['peak_mb']:,.0f} MB")
    pages = shares.result["pages"]
    speeds = [pages / walls[workers].result["seconds"] for workers in (2, 1)]
    return [
        Comparison(
            "two workers",
            "one worker",
            "pages/s",
            speeds[:1],
            speeds[1:],
            "higher",
            1.8,
            "ourselves",
            note=f"wall time; {inside:.1%} of the CPU time in extraction and tokenization",
        )
    ]


def _fresh(corpus: Corpus, what: str, workers: int) -> Finished:
    out = corpus.scratch / "pipeline"
    shutil.rmtree(out, ignore_errors=True)
    return run_ours("benchmarks.prep_pipeline", what, str(corpus.folder), str(out), "--workers", str(workers))


def config_of(folder: Path, warcs: list[str], out: Path) -> Any:
    """Return the config that is measured: every kind of stage, on some WARC files."""
    from gptdist.config.prep import PrepConfig

    return PrepConfig.from_tree(
        {
            "name": "pipeline",
            "output_dir": str(out),
            "tokenizer": {"load": str(folder / "tokenizer")},
            "sources": [{"name": "pages", "kind": "warc", "paths": warcs}],
            "language": {},
            "quality": {"gopher_quality": {}, "gopher_repetition": {}},
            "pii": {},
            "dedup": {"near": {}},
            "max_damaged_fraction": 0.2,
            "validation_fraction": 0.0,
            "input_shard_bytes": 8_000_000,
        }
    )


def start_up(folder: Path, warc: str, out: Path) -> None:
    """Do what a worker does once (imports, compiled code, models) on the first pages of a file."""
    from data_prep.executors.local import LocalExecutor
    from data_prep.pipeline import prepare
    from data_prep.progress import Progress

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    beginning = out / "beginning.warc.gz"
    with Path(warc).open("rb") as whole:
        positions = (record.stream_pos for record in ArchiveIterator(whole, parse_http=False))
        end = next(itertools.islice(positions, _START_UP_PAGES, None), -1)  # -1: all of a short file
        whole.seek(0)
        beginning.write_bytes(whole.read(end))
    config = config_of(folder, [str(beginning)], out / "out")
    begin = time.process_time()
    prepare(config, LocalExecutor(1), Progress(io.StringIO()))
    print(f"start-up: {time.process_time() - begin:.1f} CPU seconds", file=sys.stderr)
    shutil.rmtree(out)


def _timed_iterator(source: Iterator[Any], part: str, sign: int, spent: dict[str, float]) -> Iterator[Any]:
    """Add (or take off) what it costs to get each item of ``source``."""
    while True:
        before = time.process_time()
        item = next(source, None)
        spent[part] += sign * (time.process_time() - before)
        if item is None:
            return
        yield item


@contextlib.contextmanager
def _watched(spent: dict[str, float]) -> Iterator[None]:
    """Time every step, and every stage of the documents step without the stages before it."""
    from data_prep import account
    from data_prep.executors import executor

    through, run_task = account.Account.through, executor.run_task

    def watched_through(self: Any, name: str, stage: Any, documents: Any) -> Any:
        inner = through(self, name, stage, _timed_iterator(iter(documents), name, -1, spent))
        return _timed_iterator(inner, name, 1, spent)

    def watched_task(work: Any, step: Any, place: Any) -> None:
        before = time.process_time()
        run_task(work, step, place)
        spent[f"step {step.name}"] += time.process_time() - before

    account.Account.through, executor.run_task = watched_through, watched_task  # type: ignore[method-assign]
    try:
        yield
    finally:
        account.Account.through, executor.run_task = through, run_task  # type: ignore[method-assign]


def _separate(spent: dict[str, float]) -> dict[str, float]:
    """Take the stages out of the documents step; what is left of it is reading, writing and the account."""
    stages = sum(seconds for part, seconds in spent.items() if not part.startswith("step "))
    rest = spent.get("step documents", 0.0) - stages
    return {**{part: seconds for part, seconds in spent.items() if part != "step documents"}, "read and write": rest}


def main() -> None:
    """Run the pipeline once in this process, and print one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("shares", "run"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    from data_prep.executors.local import LocalExecutor
    from data_prep.pipeline import prepare
    from data_prep.progress import Progress

    spent: dict[str, float] = defaultdict(float)
    warcs = sorted(str(path) for path in arguments.folder.glob("*.warc.gz"))
    if arguments.what == "shares":
        start_up(arguments.folder, warcs[0], arguments.out.with_name("start-up"))
    config = config_of(arguments.folder, warcs, arguments.out)
    before, started = time.process_time(), time.monotonic()
    with _watched(spent) if arguments.what == "shares" else contextlib.nullcontext():
        done = prepare(config, LocalExecutor(arguments.workers), Progress(sys.stderr))
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1e3
    result = {
        "cpu_seconds": time.process_time() - before,
        "seconds": time.monotonic() - started,
        "peak_mb": peak,
        "pages": done.summary["sources"][0]["records_read"],
        "parts": _separate(spent),
        "cores": os.cpu_count(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
