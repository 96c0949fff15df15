"""Run a function on several gloo ranks, each a process forked from a server that has torch loaded already."""

import contextlib
import multiprocessing
import os
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

GRACE_SECONDS = 10
"""How long the other ranks may go on after one has failed: their errors can be the cause."""


def run_ranks(
    world_size: int, function: Callable[..., Any], *arguments: Any, timeout_seconds: float = 240
) -> list[Any]:
    """Return what ``function(*arguments)`` returns on each rank; a failure shows every rank's traceback, first first.

    ``function`` is importable; the default process group exists when it is called.
    """
    with started_ranks(world_size, function, *arguments) as (_, pipes):
        return _collect(pipes, timeout_seconds)


@contextlib.contextmanager
def started_ranks(
    world_size: int, function: Callable[..., Any], *arguments: Any
) -> Iterator[tuple[list[Any], list[Connection]]]:
    """Start the same, and yield the ranks' processes, and pipes on which each sends (when, failure, result) once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.preload"])
    with tempfile.TemporaryDirectory() as folder:
        store = f"file://{folder}/store"
        processes, pipes = [], []
        for rank in range(world_size):
            receive, send = context.Pipe()
            process = context.Process(
                target=_rank, args=(rank, world_size, store, send, function, arguments), daemon=True
            )
            process.start()
            send.close()
            processes.append(process)
            pipes.append(receive)
        try:
            yield processes, pipes
        finally:
            for pipe in pipes:
                pipe.close()  # lets the ranks go
            for process in processes:
                process.join(timeout=5)
                if process.is_alive():
                    process.kill()
                    process.join()


def _collect(pipes: list[Connection], timeout_seconds: float) -> list[Any]:
    results: dict[int, Any] = {}
    failures: list[tuple[float, int, str]] = []
    deadline = time.monotonic() + timeout_seconds
    open_pipes = {pipe: rank for rank, pipe in enumerate(pipes)}
    while open_pipes:
        ready = wait(list(open_pipes), timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        for pipe in ready:
            rank = open_pipes.pop(pipe)
            try:
                when, failure, result = pipe.recv()
            except EOFError:
                when, failure, result = time.time(), "died without a word", None
            if failure:
                failures.append((when, rank, failure))
                deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
            else:
                results[rank] = result
    if failures or open_pipes:
        shown = [f"--- rank {rank} ---\n{text}" for _, rank, text in sorted(failures)]
        shown += [f"--- rank {rank}: no result ---" for rank in open_pipes.values()]
        raise AssertionError("\n".join(shown))
    return [results[rank] for rank in range(len(pipes))]


def _rank(rank: int, world_size: int, store: str, send: Connection, function: Any, arguments: Any) -> None:
    warnings.filterwarnings("ignore")
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    try:
        from datetime import timedelta

        import torch
        import torch.distributed as dist

        import tests.support.preload  # noqa: F401 - not there if another test has started the fork server

        torch.set_num_threads(1)
        dist.init_process_group(
            "gloo", init_method=store, rank=rank, world_size=world_size, timeout=timedelta(seconds=60)
        )
        send.send((time.time(), "", function(*arguments)))
    except BaseException:
        send.send((time.time(), traceback.format_exc(), None))
    else:
        # A rank that is done first must not take its connections from one that is still making its own.
        with contextlib.suppress(EOFError, OSError):
            send.recv()
    finally:
        send.close()
        os._exit(0)


def repository() -> Path:
    """Return the folder of the whole project."""
    return Path(__file__).resolve().parents[2]
