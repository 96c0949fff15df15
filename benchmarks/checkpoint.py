"""Checkpoints: saving, loading and their memory, against the disk and against what users would take instead.

``python -m benchmarks.checkpoint [--size small] [--rounds N] [--only NAME …] [--folder FOLDER]``. The folder should be
on the disk that is to be measured; what is written there is removed. Everything of a table is measured by turns in one
run, on the state of the same engine; ratios are taken round by round, printed is their median with the lowest and the
highest. ``cold`` means that the files' pages were dropped from the page cache before (``posix_fadvise``).
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import checkpoint_figures
from benchmarks.checkpoint_figures import Seconds
from benchmarks.checkpoint_peers import TAG, UNIVERSAL_TAG, sync_files
from benchmarks.comparison import Comparison, add_options, tell, write
from benchmarks.contenders import ask, start_ranks

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "seq_length": 32, "vocab_size": 512},
    "small": {"num_layers": 8, "hidden_size": 768, "num_attention_heads": 12, "seq_length": 128, "vocab_size": 32_000},
    "large": {
        "num_layers": 12,
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "seq_length": 128,
        "vocab_size": 50_304,
    },
}
"""Models of 0.1, 81 and 203 million parameters."""

CHECKSUM_TOLERANCE = 1e-9
"""Sums over other layouts are taken in another order, in fp64."""


@dataclass
class Ranks:
    """A run that is open on some ranks."""

    name: str
    processes: "list[subprocess.Popen[str]]"

    def __call__(self, what: str, **details: Any) -> dict[str, Any]:
        """Have it done by all ranks: rank 0's answer, with the most seconds and bytes of any rank."""
        answers = ask(self.name, self.processes, {"do": what, **details})
        most = {key: max(answer[key] for answer in answers) for key in ("seconds", "extra_bytes") if key in answers[0]}
        return answers[0] | most


@dataclass
class Bench:
    """Where things are, and how much is to be done."""

    folder: Path
    size: str
    rounds: int

    @contextmanager
    def ranks(
        self, name: str, ranks: int, *, zero: int = 1, tensor: int = 1, gives_back: bool = False
    ) -> Iterator[Ranks]:
        """Open a run of the model on so many ranks; two get a thread each."""
        where = self.folder / name.replace(" ", "-")
        tree = {
            "name": "benchmark",
            "run_dir": str(where / "run"),
            "model": SIZES[self.size],
            "data": {
                "tokenizer": str(self.folder / "data" / "tokenizer"),
                "sources": [{"path": str(self.folder / "data" / "text"), "weight": 1.0}],
            },
            "batch": {"global_batch_size": 2, "micro_batch_size": 1},
            "training": {"train_steps": 1_000_000, "device": "cpu"},
            "parallel": {"zero_stage": zero, "tensor_parallel_size": tensor},
            "launch": {"ranks_per_node": ranks},
            "telemetry": {"tensorboard": False},
        }
        where.mkdir()
        settings = json.dumps({"config": tree, "gives_back": gives_back})
        argv = [sys.executable, "-m", "benchmarks.checkpoint_rank", settings]
        processes = start_ranks(argv, ranks=ranks, threads=2 // ranks, store=where / "store")
        try:
            yield Ranks(name, processes)
        finally:
            for process in processes:
                process.kill()
                process.wait()
            shutil.rmtree(where)

    def place(self, name: str) -> str:
        """Return an empty place for what a peer saves."""
        place = self.folder / "peers" / name
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(exist_ok=True)
        return str(place)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table for each comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small", help="of the model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, default=list(COMPARISONS))
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; default: the system's folder for it")
    add_options(parser)
    arguments = parser.parse_args(argv)
    from tests.support.datasets import write_dataset

    found: list[Comparison] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        write_dataset(Path(folder, "data", "text"), documents=2000, shards=1)
        size, rounds = ("tiny", 1) if arguments.quick else (arguments.size, arguments.rounds)
        bench = Bench(Path(folder), size, rounds)
        for name in arguments.only:
            found += COMPARISONS[name](bench)
            sys.stdout.flush()  # the next one takes minutes
    write(arguments.json, found)


def one_rank(bench: Bench) -> list[Comparison]:
    """Compare on one rank."""
    return _same_layout(bench, 1)


def two_ranks(bench: Bench) -> list[Comparison]:
    """Compare on two data-parallel ranks."""
    return _same_layout(bench, 2)


def _same_layout(bench: Bench, ranks: int) -> list[Comparison]:
    """Save and load on one layout, ZeRO-1."""
    seconds = Seconds()
    with bench.ranks(f"ZeRO-1 on {ranks}", ranks) as run:
        facts = run("facts")
        first = _save_all(bench, run, Seconds(), ranks)  # warm: libraries loaded, buffers allocated
        run("read", folder=first["save"][0]["folder"])
        for number in range(bench.rounds):
            is_backwards = number % 2 == 1
            folders = _save_all(bench, run, seconds, ranks, is_backwards=is_backwards)
            for state in ("cold", "warm"):
                _load_all(run, seconds, _loads(folders, is_backwards=is_backwards), facts, state)
    sizes = {name: size for name, (_, size) in folders.items()}
    print(f"\n{ranks} rank{'s' * (ranks > 1)}, ZeRO-1, {facts['parameters']:,} parameters, AdamW in fp32")
    return tell(checkpoint_figures.same_layout(seconds, sizes, facts, first["save_async"][0]["stall"], ranks))


def _save_all(
    bench: Bench, run: Ranks, seconds: Seconds, ranks: int, *, is_backwards: bool = False
) -> dict[str, tuple[dict[str, Any], int]]:
    """Save in every way; return rank 0's answer with the bytes that were written."""
    ways = ("save", "save_async", "dd", "deepspeed_save", "dcp_save", "dcp_save_async")
    found: dict[str, tuple[dict[str, Any], int]] = {}
    shutil.rmtree(bench.folder / f"ZeRO-1-on-{ranks}" / "run" / "checkpoints", ignore_errors=True)
    for way in ways[:1] + (tuple(reversed(ways[1:])) if is_backwards else ways[1:]):
        target = {} if way.startswith("save") else {"folder": bench.place(way)}
        os.sync()
        answer = _dd(Path(found["save"][0]["folder"]), Path(target["folder"])) if way == "dd" else run(way, **target)
        seconds.of[way].append(answer["seconds"])
        found[way] = answer, _size(Path(answer["folder"]))
    seconds.of["stall"].append(found["save_async"][0]["stall"])
    seconds.of["dcp_stall"].append(found["dcp_save_async"][0]["stall"])
    seconds.of["deepspeed_cached"].append(found["deepspeed_save"][0]["seconds"] - found["deepspeed_save"][0]["fsync"])
    return found


def _dd(source: Path, target: Path) -> dict[str, Any]:
    """Copy the files of a checkpoint, all at once, as ``dd`` does with fsync; they are in the page cache."""
    import time

    target.mkdir()
    files = sorted(source.glob("*.safetensors"))
    sync_files(source)
    begin = time.perf_counter()
    argvs = [["dd", f"if={file}", f"of={target / file.name}", "bs=4M", "conv=fsync", "status=none"] for file in files]
    copies = [subprocess.Popen(argv) for argv in argvs]
    for copy in copies:
        if copy.wait():
            raise SystemExit(f"dd ended with status {copy.returncode}; its error is above")
    return {"seconds": time.perf_counter() - begin, "folder": str(target)}


def _loads(folders: dict[str, tuple[dict[str, Any], int]], *, is_backwards: bool) -> list[tuple[str, str]]:
    """Return the ways of loading in their order, each with the folder that it loads."""
    ours, deepspeed, dcp = (folders[way][0]["folder"] for way in ("save", "deepspeed_save", "dcp_save"))
    ways = [("read", ours), ("load", ours), ("resume", ours), ("deepspeed_load", deepspeed), ("dcp_load", dcp)]
    return ways[::-1] if is_backwards else ways


def _load_all(run: Ranks, seconds: Seconds, ways: Sequence[tuple[str, str]], facts: dict[str, Any], state: str) -> None:
    """Load in every way what was saved by each, ``state`` being cold or warm."""
    for way, folder in ways:
        _timed_load(run, seconds, way, folder, facts=facts, state=state)


def _timed_load(
    run: Ranks, seconds: Seconds, way: str, folder: str, *, facts: dict[str, Any], state: str, **details: Any
) -> None:
    """Load once, and compare what is there then with what was saved."""
    for path in Path(folder).rglob("*"):
        _warm(path, is_cold=state == "cold")
    answer = run(way, folder=folder, **details)
    for one, other in zip(answer.get("checksum", facts["checksum"]), facts["checksum"], strict=True):
        if not math.isclose(one, other, rel_tol=CHECKSUM_TOLERANCE):
            raise SystemExit(f"{run.name}, {way}: values add up to {one}, those saved to {other}")
    seconds.of[f"{way} {state}"].append(answer["seconds"])


def _warm(path: Path, *, is_cold: bool) -> None:
    """Have a file in the page cache, or not."""
    if path.is_file():
        with path.open("rb") as file:
            if is_cold:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while file.read(1 << 22):
                    pass


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def other_layouts(bench: Bench) -> list[Comparison]:
    """Load what two data-parallel ranks of ZeRO-1 have saved into other layouts."""
    seconds = Seconds()
    with bench.ranks("source", 2) as source:
        facts = source("facts")
        ours = source("save")["folder"]
        theirs = source("deepspeed_save", folder=bench.place("deepspeed"))["folder"]
        flat = source("dcp_save", folder=bench.place("dcp"))["folder"]
        kept = bench.folder / "kept"
        shutil.copytree(ours, kept)
    os.sync()
    universal = str(Path(theirs, UNIVERSAL_TAG))
    targets = ("one rank", 1, 1, 1), ("tensor parallel 2", 2, 1, 2), ("ZeRO-3", 2, 3, 1)
    for title, ranks, zero, tensor in targets:
        with bench.ranks(title, ranks, zero=zero, tensor=tensor) as run:
            run("read", folder=str(kept))  # allocates
            for number in range(bench.rounds):
                for state in ("cold", "warm"):
                    for way in ("read", "load")[:: 1 if number % 2 == 0 else -1]:
                        name = Seconds()
                        _timed_load(run, name, way, str(kept), facts=facts, state=state)
                        seconds.of[f"{title} {way} {state}"] += name.of[f"{way} {state}"]
                if title == "one rank":
                    shutil.rmtree(universal, ignore_errors=True)
                    seconds.of["convert"].append(_convert(Path(theirs, TAG), universal))
                    _timed_load(run, seconds, "deepspeed_load", theirs, facts=facts, state="warm", tag=UNIVERSAL_TAG)
                    _timed_load(run, seconds, "dcp_load", flat, facts=facts, state="warm")
    print(f"\n2 ranks of ZeRO-1 into other layouts, {facts['parameters']:,} parameters, AdamW in fp32")
    return tell(checkpoint_figures.other_layouts(seconds, [title for title, *_ in targets]))


def _convert(source: Path, target: str) -> float:
    argv = [sys.executable, "-m", "benchmarks.checkpoint_peers", str(source), target]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.strip().splitlines()[-1])["seconds"])


def memory(bench: Bench) -> list[Comparison]:
    """Compare what saves and loads need in host memory, beyond what the run holds."""
    print(f"\nhost memory of the rank that needs most, beyond what the run holds, {bench.size} model")
    found = []
    for ranks in (1, 2):
        with bench.ranks(f"memory {ranks}", ranks, gives_back=True) as run:
            facts = run("facts")
            allowed, buffers = 2 * facts["largest_bytes"], facts["buffer_bytes"]
            saved = run("save", memory=True)
            needed = {
                "synchronous save": (saved, allowed),
                "asynchronous save": (run("save_async", memory=True), allowed + buffers),
                "load": (run("load", folder=saved["folder"], memory=True), allowed),
            }
        for what, (answer, most) in needed.items():
            found.append(checkpoint_figures.memory(f"{what} on {ranks}, ZeRO-1", answer["extra_bytes"], most))
    return tell(found)


COMPARISONS: dict[str, Callable[[Bench], list[Comparison]]] = {
    "one_rank": one_rank,
    "two_ranks": two_ranks,
    "other_layouts": other_layouts,
    "memory": memory,
}


if __name__ == "__main__":
    main()
