"""Launching: seconds to a dry run, from a killed rank to training again, and for many ranks to meet.

``python -m benchmarks.launch [--rounds N] [--only NAME …]``. Restarts are measured by turns with torchrun's own
(``--max-restarts``) on the same ranks of the same run; ratios are taken round by round. How long 1,024 ranks take to
meet is computed from what fewer took on this machine, all on its cores.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from statistics import median

import psutil
import yaml

from benchmarks.comparison import Comparison, add_options, tell, write
from gptdist.telemetry.ledger import read_json_lines
from tests.support.datasets import run_tree

RANKS = 2
MEETINGS = (8, 16, 32, 64)
"""Numbers of ranks that meet; each is a process with torch loaded."""

FAR = 1024
_LONG_SECONDS = 300


def seconds_of(argv: Sequence[str], status: int = 0) -> float:
    """Return how long a command takes, which ends with ``status``."""
    begin = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, check=False)
    assert done.returncode == status, done.stderr.decode()
    return time.perf_counter() - begin


def starts(rounds: int) -> list[Comparison]:
    """Print what a login node waits for, against the import of torch alone and the help of other launchers."""
    config, gptdist = "configs/runs/demo-cpu.yaml", [sys.executable, "-m", "gptdist.cli.main"]
    commands: dict[str, tuple[list[str], int]] = {
        "import torch": ([sys.executable, "-c", "import torch"], 0),
        "gptdist --help": ([*gptdist, "--help"], 0),
        "torchrun --help": ([sys.executable, "-m", "torch.distributed.run", "--help"], 0),
        "deepspeed --help": ([sys.executable, "-m", "deepspeed.launcher.runner", "--help"], 0),
        "launch local --dry-run": ([*gptdist, "launch", "local", config, "--dry-run"], 0),
        "launch local, a wrong config": ([*gptdist, "launch", "local", config, "optimizer.lr=fast"], 2),
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for argv, status in commands.values():
        seconds_of(argv, status)  # files into the page cache
    for number in range(rounds):
        for name, (argv, status) in list(commands.items())[:: 1 if number % 2 == 0 else -1]:
            taken[name].append(seconds_of(argv, status))
    for name, each in taken.items():
        print(f"{name:<32} {median(each):6.2f} s ({min(each):.2f} to {max(each):.2f})")
    pairs = {name: ("gptdist --help", name) for name in ("torchrun --help", "deepspeed --help")}
    pairs |= {name: (name, "import torch") for name in commands if name.startswith("launch")}
    return [
        Comparison(
            ours, theirs, "s", taken[ours], taken[theirs], "lower", against="tool" if "--help" in ours else "yardstick"
        )
        for ours, theirs in pairs.values()
    ]


def _config(folder: Path, name: str) -> Path:
    tree = run_tree(
        folder,
        name=name,
        run_dir=str(folder / name),
        training={"train_steps": 1_000_000},
        intervals={"log_steps": 1, "save_steps": 20, "eval_steps": 1_000_000},
        checkpoints={"keep": {"last": 1}},
        launch={"ranks_per_node": RANKS, "threads_per_rank": 1, "restart_wait_seconds": 0.0},
    )
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _ours(config: Path) -> list[str]:
    return [sys.executable, "-m", "gptdist.cli.main", "launch", "local", str(config)]


def _torchrun(config: Path) -> list[str]:
    words = ["--standalone", f"--nproc-per-node={RANKS}", "--max-restarts=3", "-m", "gptdist.train", str(config)]
    return [sys.executable, "-m", "torch.distributed.run", *words]


def _wait_for(run: Path, is_so: Callable[[list[dict]], bool]) -> None:
    deadline = time.monotonic() + _LONG_SECONDS
    while not is_so(read_json_lines(run / "metrics.jsonl")):
        assert time.monotonic() < deadline, f"{run}: nothing happens"
        time.sleep(0.02)


def _is_rank(process: psutil.Process) -> bool:
    return "gptdist.train" in process.cmdline() and "RANK" in process.environ()


def restart_seconds(folder: Path, name: str, argv_of: Callable[[Path], list[str]]) -> float:
    """Train, kill a rank, and return the seconds to the first step of the next attempt."""
    config, run = _config(folder, name), folder / name
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    process = subprocess.Popen(argv_of(config), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(run, lambda rows: any(row["step"] > 30 for row in rows))
        ranks = [one for one in psutil.Process(process.pid).children(recursive=True) if _is_rank(one)]
        begin = time.perf_counter()
        ranks[-1].kill()
        _wait_for(run, lambda rows: any(row["attempt"] == 2 for row in rows))
        return time.perf_counter() - begin
    finally:
        for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            one.kill()
        process.wait()


def restarts(rounds: int) -> list[Comparison]:
    """Print from a killed rank to the next step, by turns with torchrun's own restart."""
    ways = {"gptdist launch local": _ours, "torchrun --max-restarts": _torchrun}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            order = list(ways.items())
            for place, (name, argv_of) in enumerate(order if number % 2 else order[::-1]):
                taken[name].append(restart_seconds(Path(folder), f"run-{number}-{place}", argv_of))
    for name, each in taken.items():
        print(f"{name:<32} {median(each):6.2f} s ({min(each):.2f} to {max(each):.2f}) from kill -9 to a step")
    ours, theirs = (taken[name] for name in ways)
    return [Comparison("restart of a killed rank", "torchrun --max-restarts", "s", ours, theirs, "lower")]


def _meet(rank: int, size: int, port: int, results: "multiprocessing.SimpleQueue[float]") -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    begin = time.perf_counter()
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group(
        "gloo", init_method=address, rank=rank, world_size=size, timeout=timedelta(seconds=_LONG_SECONDS)
    )
    dist.barrier()
    results.put(time.perf_counter() - begin)
    dist.barrier()
    os._exit(0)


def meeting_seconds(size: int, port: int) -> float:
    """Return how long ``size`` processes take to be a group of gloo."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed"])
    results = context.SimpleQueue()
    ranks = [context.Process(target=_meet, args=(rank, size, port, results)) for rank in range(size)]
    for rank in ranks:
        rank.start()
    found = [results.get() for _ in ranks]
    for rank in ranks:
        rank.join()
    # From when the last one came: before, it is the start of processes.
    return min(found)


def meetings(rounds: int) -> list[Comparison]:
    """Print how long ranks take to meet, and what that makes of 1,024; there is nothing to compare it with."""
    ports = itertools.count(24000)
    taken = {size: [meeting_seconds(size, next(ports)) for _ in range(rounds)] for size in MEETINGS}
    for size, each in taken.items():
        print(f"{size:>5} ranks meet in {median(each):6.2f} s, {median(each) / size * 1e3:.1f} ms a rank")
    first, last = MEETINGS[-2], MEETINGS[-1]
    slope = (median(taken[last]) - median(taken[first])) / (last - first)
    print(
        f"{FAR:>5} ranks would take {median(taken[last]) + slope * (FAR - last):.0f} s if each took what the last "
        f"{last - first} did, {slope * 1e3:.1f} ms; all of this on {os.cpu_count()} cores"
    )
    return []


WHAT = {"starts": starts, "restarts": restarts, "meetings": meetings}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.launch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=WHAT, default=list(WHAT))
    add_options(parser)
    arguments = parser.parse_args()
    print(json.dumps({"cores": os.cpu_count(), "load": os.getloadavg()}))
    found: list[Comparison] = []
    for name in arguments.only:
        print(f"\n{name}")
        found += tell(WHAT[name](1 if arguments.quick else arguments.rounds))
    write(arguments.json, found)


if __name__ == "__main__":
    main()
