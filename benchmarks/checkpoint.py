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
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.checkpoint_peers import TAG, UNIVERSAL_TAG, sync_files
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


@dataclass
class Seconds:
    """What was measured, by name, a value for each round."""

    of: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def ratio(self, one: str, other: str) -> list[float]:
        """Return ``one`` / ``other``, round by round."""
        return [ours / theirs for ours, theirs in zip(self.of[one], self.of[other], strict=True)]

    def line(self, name: str, title: str = "") -> None:
        """Print seconds."""
        values = self.of[name]
        print(f"  {title or name:<58}{median(values):>8.3f} s  ({min(values):.3f} to {max(values):.3f})")


def show_ratio(name: str, ratios: Sequence[float], target: float | None = None, *, at_least: bool = False) -> None:
    """Print a ratio, and whether it is what it should be; without a target it is for information."""
    ratio = median(ratios)
    verdict = ""
    if target is not None:
        reached = ratio >= target if at_least else ratio <= target
        verdict = f"(target at {'least' if at_least else 'most'} {target:g}, {'reached' if reached else 'MISSED'})"
    print(f"  {name:<58}{ratio:>8.3f} x  ({min(ratios):.3f} to {max(ratios):.3f})  {verdict}")


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table for each comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small", help="of the model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, default=list(COMPARISONS))
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; default: the system's folder for it")
    arguments = parser.parse_args(argv)
    from tests.support.datasets import write_dataset

    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        write_dataset(Path(folder, "data", "text"), documents=2000, shards=1)
        bench = Bench(Path(folder), arguments.size, arguments.rounds)
        for name in arguments.only:
            COMPARISONS[name](bench)
            sys.stdout.flush()  # the next one takes minutes


def one_rank(bench: Bench) -> None:
    """Compare on one rank."""
    _same_layout(bench, 1)


def two_ranks(bench: Bench) -> None:
    """Compare on two data-parallel ranks."""
    _same_layout(bench, 2)


def _same_layout(bench: Bench, ranks: int) -> None:
    """Save and load on one layout, ZeRO-1."""
    seconds = Seconds()
    with bench.ranks(f"ZeRO-1 on {ranks}", ranks) as run:
        facts = run("facts")
        first = _save_all(bench, run, Seconds(), ranks)  # warm: libraries loaded, buffers allocated
        run("read", folder=first["save"][0]["folder"])
        for number in range(bench.rounds):
            folders = _save_all(bench, run, seconds, ranks, backwards=number % 2 == 1)
            for state in ("cold", "warm"):
                _load_all(run, seconds, folders, facts, state)
    sizes = {name: size for name, (_, size) in folders.items()}
    least = 12 * facts["parameters"]
    print(f"\n{ranks} rank{'s' * (ranks > 1)}, ZeRO-1, {facts['parameters']:,} parameters, AdamW in fp32")
    show_ratio("bytes / (parameters x 12)", [sizes["save"] / least], 1.02)
    print(
        f"  the first asynchronous save allocates its buffers, and stalls for {first['save_async'][0]['stall']:.3f} s"
    )
    show_ratio("stall of an asynchronous save / synchronous save", seconds.ratio("stall", "save"), 0.1)
    dd = f"dd conv=fsync of the same files{', both at once' * (ranks > 1)}"
    rates = [size * sizes["save"] / sizes["dd"] for size in seconds.ratio("dd", "save")]
    show_ratio(f"rate of saving / {dd}", rates, 0.8, at_least=True)
    for state in ("cold", "warm"):
        show_ratio(f"load / plain read, {state}", seconds.ratio(f"load {state}", f"read {state}"), 1.2)
        show_ratio(
            f"hashes compared and loaded / plain read, {state}", seconds.ratio(f"resume {state}", f"read {state}")
        )
    _side_by_side(seconds, sizes)


def _save_all(
    bench: Bench, run: Ranks, seconds: Seconds, ranks: int, *, backwards: bool = False
) -> dict[str, tuple[dict[str, Any], int]]:
    """Save in every way; return rank 0's answer with the bytes that were written."""
    ways = ("save", "save_async", "dd", "deepspeed_save", "dcp_save", "dcp_save_async")
    found: dict[str, tuple[dict[str, Any], int]] = {}
    shutil.rmtree(bench.folder / f"ZeRO-1-on-{ranks}" / "run" / "checkpoints", ignore_errors=True)
    for way in ways[:1] + (tuple(reversed(ways[1:])) if backwards else ways[1:]):
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


def _load_all(
    run: Ranks, seconds: Seconds, folders: dict[str, tuple[dict[str, Any], int]], facts: dict[str, Any], state: str
) -> None:
    """Load in every way what was saved by each, ``state`` being cold or warm."""
    ours = folders["save"][0]["folder"]
    for way, folder in (
        ("read", ours),
        ("load", ours),
        ("resume", ours),
        ("deepspeed_load", folders["deepspeed_save"][0]["folder"]),
        ("dcp_load", folders["dcp_save"][0]["folder"]),
    ):
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


def _side_by_side(seconds: Seconds, sizes: dict[str, int]) -> None:
    """Print ours, DeepSpeed's and torch.distributed.checkpoint's figures, and how many times theirs ours are."""
    rows = (
        ("save, synchronous, on the disk", "save", "deepspeed_save", "dcp_save"),
        ("save, left in the page cache", "", "deepspeed_cached", ""),
        ("stall of an asynchronous save", "stall", "", "dcp_stall"),
        ("asynchronous save until it is on the disk", "save_async", "", "dcp_save_async"),
        ("load, cold", "load cold", "deepspeed_load cold", "dcp_load cold"),
        ("load, warm", "load warm", "deepspeed_load warm", "dcp_load warm"),
        ("hashes compared and loaded, cold", "resume cold", "", ""),
        ("hashes compared and loaded, warm", "resume warm", "", ""),
    )
    print(f"  {'':<44}{'gptdist':>12}{'DeepSpeed':>12}{'torch dcp':>12}{'/ DeepSpeed':>13}{'/ torch dcp':>13}")
    for title, *names in rows:
        values = [f"{median(seconds.of[name]):.3f} s" if name else "" for name in names]
        ratios = [
            f"{median(seconds.ratio(names[0], other)):.2f} x" if names[0] and other else "" for other in names[1:]
        ]
        print(f"  {title:<44}" + "".join(f"{value:>12}" for value in values) + "".join(f"{one:>13}" for one in ratios))
    ours, *others = (sizes[name] for name in ("save", "deepspeed_save", "dcp_save"))
    print(
        f"  {'bytes':<44}"
        + "".join(f"{size / 1e6:>9,.1f} MB" for size in (ours, *others))
        + "".join(f"{ours / other:>11.2f} x" for other in others)
    )


def other_layouts(bench: Bench) -> None:
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
            for _ in range(bench.rounds):
                for state in ("cold", "warm"):
                    for way in ("read", "load"):
                        name = Seconds()
                        _timed_load(run, name, way, str(kept), facts=facts, state=state)
                        seconds.of[f"{title} {way} {state}"] += name.of[f"{way} {state}"]
                if title == "one rank":
                    shutil.rmtree(universal, ignore_errors=True)
                    seconds.of["convert"].append(_convert(Path(theirs, TAG), universal))
                    _timed_load(run, seconds, "deepspeed_load", theirs, facts=facts, state="warm", tag=UNIVERSAL_TAG)
                    _timed_load(run, seconds, "dcp_load", flat, facts=facts, state="warm")
    print(f"\n2 ranks of ZeRO-1 into other layouts, {facts['parameters']:,} parameters, AdamW in fp32")
    for title, *_ in targets:
        for state in ("cold", "warm"):
            ratios = seconds.ratio(f"{title} load {state}", f"{title} read {state}")
            show_ratio(f"load into {title} / plain read, {state}", ratios, 2.0)
    changed = [sum(pair) for pair in zip(seconds.of["convert"], seconds.of["deepspeed_load warm"], strict=True)]
    seconds.of["universal"] = changed
    print("  into one rank, files in the page cache:")
    seconds.line("one rank load warm", "gptdist")
    seconds.line("universal", "DeepSpeed: conversion to universal, and load")
    seconds.line("dcp_load warm", "torch dcp, flat groups of ZeRO (no tensor parallelism)")
    show_ratio("gptdist / DeepSpeed", seconds.ratio("one rank load warm", "universal"))
    show_ratio("gptdist / torch dcp", seconds.ratio("one rank load warm", "dcp_load warm"))


def _convert(source: Path, target: str) -> float:
    argv = [sys.executable, "-m", "benchmarks.checkpoint_peers", str(source), target]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.strip().splitlines()[-1])["seconds"])


def memory(bench: Bench) -> None:
    """Compare what saves and loads need in host memory, beyond what the run holds."""
    print(f"\nhost memory of the rank that needs most, beyond what the run holds, {bench.size} model")
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
            held = f"{answer['extra_bytes'] / 1e6:,.1f} MB of {most / 1e6:,.1f}"
            show_ratio(f"{what} on {ranks}, ZeRO-1: {held}", [answer["extra_bytes"] / most], 1.0)


COMPARISONS: dict[str, Callable[[Bench], None]] = {
    "one_rank": one_rank,
    "two_ranks": two_ranks,
    "other_layouts": other_layouts,
    "memory": memory,
}


if __name__ == "__main__":
    main()
