"""One host's part in measuring a link: ``python -m launch.preflight.link [NAME]``.

Reads as JSON on standard input who meets whom, and prints one line of JSON. The two of a meeting are the ranks of a
process group, with the backend that the training will use.
"""

import json
import os
import sys
import threading
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store, TCPStore

from launch.preflight.probe import own_name

PATIENCE = timedelta(seconds=60)
"""How long a host waits for the other, whose torch may still be loading."""

MIN_BYTES, MAX_BYTES = 2**20, 2**28
"""Of the buffer; it grows until one all-reduce takes ENOUGH_SECONDS."""

ENOUGH_SECONDS = 0.1
_LATENCY_ROUNDS = 50
_LOOK_SECONDS = 0.2
_REPEATS = 3


def main() -> None:
    """Answer the request on standard input."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    request = json.loads(sys.stdin.read())
    print(json.dumps(measure(request, own_name(sys.argv[1:]))), flush=True)  # noqa: T201 - it is what is asked for


def _end_with(parent: int) -> None:
    """End once ``parent`` is gone, as sshd's session is when ssh has been ended: the port is needed again."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


def measure(request: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what ``name`` measures with the one that it meets; if that fails there is an error instead."""
    first, _ = next(pair for pair in request["meetings"] if name in pair)
    uses_gpu = request["device"] != "cpu" and torch.cuda.is_available()
    try:
        if name == first:
            store: Store = TCPStore("0.0.0.0", request["port"], is_master=True, wait_for_workers=False)
        else:
            store = TCPStore(first, request["port"], is_master=False, wait_for_workers=False, timeout=PATIENCE)
        return {"name": name, **_meet(store, rank=int(name != first), uses_gpu=uses_gpu)}
    except (RuntimeError, OSError, ValueError) as error:  # torch's own of a peer that fails or does not come
        return {"name": name, "error": (str(error).splitlines() or [""])[0][:200]}


def _meet(store: Store, *, rank: int, uses_gpu: bool) -> dict[str, Any]:
    """Measure with the other host. Collective: both hosts call it."""
    device = torch.device("cuda", 0) if uses_gpu else torch.device("cpu")
    backend = "nccl" if uses_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=2, timeout=PATIENCE)
    try:
        latency = min(_seconds(torch.ones(1, device=device), _LATENCY_ROUNDS) for _ in range(_REPEATS))
        return {"gbit_per_second": _bandwidth(device), "latency_us": latency * 1e6}
    finally:
        dist.destroy_process_group()


def _bandwidth(device: torch.device) -> float:
    """Return Gbit/s of the largest buffer whose all-reduce does not take long.

    An all-reduce between two sends the buffer once each way, so that the bytes of a link's direction are those of the
    buffer.
    """
    size = MIN_BYTES
    while True:
        buffer = torch.ones(size // 4, device=device)
        first = _agreed(_seconds(buffer, 1))
        if first >= ENOUGH_SECONDS or size >= MAX_BYTES:
            seconds = min(first, _seconds(buffer, 2)) if first < 10 * ENOUGH_SECONDS else first
            return size * 8 / seconds / 1e9
        size *= 4


def _agreed(seconds: float) -> float:
    """Return the longer time of the two hosts, so that both go on alike. Collective."""
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    longest = torch.tensor([seconds], dtype=torch.float64, device=device)
    dist.all_reduce(longest, op=dist.ReduceOp.MAX)
    return float(longest.item())


def _seconds(buffer: torch.Tensor, rounds: int) -> float:
    """Return seconds of an all-reduce of ``buffer``, the mean of so many. Collective."""
    _wait_for_both(buffer)
    start = time.perf_counter()
    for _ in range(rounds):
        dist.all_reduce(buffer)
    if buffer.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / rounds


def _wait_for_both(buffer: torch.Tensor) -> None:
    """Reduce one number, so that the clock starts when both are there. Collective."""
    dist.all_reduce(buffer[:1])
    if buffer.is_cuda:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
