"""What the steps since the last line of the log took: time by part, and memory."""

import time
from dataclasses import dataclass

import torch
import torch.distributed as dist

from gptdist.telemetry.memory import peak_memory_bytes
from gptdist.train.run import Run

_GIB = 2**30


@dataclass(frozen=True)
class Spent:
    """Time and memory since the last line."""

    seconds: float
    """Of all steps; evaluations and checkpoints are not in it."""

    numbers: dict[str, float | None]
    """For the record, by name."""


def take_spent(run: Run) -> Spent:
    """Return what the steps since the last call took, and begin anew. Collective: every rank calls it.

    Communication: two numbers over all ranks.
    """
    since, parts = run.state.since, run.clock.take()
    between = {f"{part}_seconds": parts.pop(part) or 0.0 for part in ("evaluation", "checkpoint")}
    seconds = time.perf_counter() - since.begin - sum(between.values())
    each = {f"{part}_seconds": None if spent is None else spent / since.steps for part, spent in parts.items()}
    step_seconds = seconds / since.steps
    other = step_seconds - sum(spent or 0.0 for spent in each.values())
    waited = each["communication_seconds"]
    slowest, peak = _largest(
        [0.0 if waited is None else step_seconds - waited, peak_memory_bytes(run.device.torch_device) or 0.0], run
    )
    run.clock.take()  # the wait for that maximum, which is no part of the steps to come
    since.restart()
    numbers = {
        "step_seconds": step_seconds,
        **each,
        "other_seconds": other,
        "slowest_rank_seconds": slowest or None,
        **between,
        "peak_memory_gib": peak / _GIB or None,
    }
    return Spent(seconds, numbers)


def _largest(values: list[float], run: Run) -> list[float]:
    if run.mesh.layout.world_size == 1:
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=run.device.torch_device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return [float(value) for value in tensor.cpu()]
