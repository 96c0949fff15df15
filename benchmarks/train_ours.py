"""Our side of ``benchmarks.train_step``: ``python -m benchmarks.train_ours KIND SETTINGS_JSON`` on one of its ranks.

``trainer`` is the loop's own step; ``bare`` is a minimal loop on a DeepSpeed engine of its own, made alike, and ready
batches; ``ddp`` is the same model under torch's DistributedDataParallel; ``matmul`` is the machine's rate of matrix
multiplication.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.contenders import serve
from benchmarks.rank import begin_rank


def main(kind: str, settings: dict[str, Any]) -> None:
    """Build what ``kind`` names and answer until standard input is closed."""
    if kind == "matmul":
        serve(_matmul)
        return
    begin_rank()
    from gptdist.config.run import RunConfig
    from gptdist.train.build import build, join
    from gptdist.train.stop_signal import StopSignal

    config = RunConfig.from_tree(settings["config"])
    mesh, device = join(config, local_rank=int(os.environ["LOCAL_RANK"]))
    run = build(config, mesh, device, StopSignal())
    work = {"trainer": _trainer, "bare": _bare, "ddp": _ddp}[kind](run)
    with torch.enable_grad():
        serve(work)


def _trainer(run: Any) -> Callable[[int], dict[str, Any]]:
    from gptdist.train.loop import train_step

    def work(steps: int) -> dict[str, Any]:
        run.clock.take()
        begin = time.perf_counter()
        for _ in range(steps):
            run.state.advance(train_step(run))
        seconds = time.perf_counter() - begin
        data_seconds = run.clock.take()["data"]
        return {
            "seconds": seconds,
            "data_share": data_seconds / seconds,
            "peak_bytes": _peak_bytes(),
            "loss": run.state.loss,
        }

    return work


def _batches(run: Any) -> list[Any]:
    from gptdist.data.batches import Batch

    size, replicas = run.config.batch.micro_batch_size, run.mesh.layout.data_parallel_size
    firsts = [(number * replicas + run.mesh.place.dp_rank) * size for number in range(run.num_micro_batches)]
    return [Batch.of(run.data.rows(first, size), run.device.torch_device) for first in firsts]


def _bare(run: Any) -> Callable[[int], dict[str, Any]]:
    import deepspeed

    from gptdist.mesh.groups import ModelParallelUnit
    from gptdist.train.build import build_model
    from gptdist.train.engine import clip_gradients, deepspeed_config, make_optimizer

    config, mesh, batches = run.config, run.mesh, _batches(run)
    model = build_model(config, mesh, run.device)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=make_optimizer(model, config),
        config=deepspeed_config(config, mesh, run.device.dtype, model),
        mpu=ModelParallelUnit(mesh),
    )
    positions = batches[0].positions()
    clips = config.parallel.zero_stage == 0  # DeepSpeed does not, and neither would report the norm

    def work(steps: int) -> dict[str, Any]:
        begin = time.perf_counter()
        for _ in range(steps):
            for batch in batches:
                engine.backward(engine(batch.tokens, positions, None, labels=batch.labels))
                if clips and engine.is_gradient_accumulation_boundary():
                    clip_gradients(engine.module, 1.0, mesh)
                engine.step()
        return {"seconds": time.perf_counter() - begin}

    return work


def _ddp(run: Any) -> Callable[[int], dict[str, Any]]:
    from gptdist.train.build import build_model

    model = torch.nn.parallel.DistributedDataParallel(build_model(run.config, run.mesh, run.device))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1, betas=(0.9, 0.95), fused=True)
    batches = _batches(run)
    positions = batches[0].positions()
    assert len(batches) == 1, "no accumulation, which needs no_sync"

    def work(steps: int) -> dict[str, Any]:
        begin = time.perf_counter()
        for _ in range(steps):
            model(batches[0].tokens, positions, None, labels=batches[0].labels).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return {"seconds": time.perf_counter() - begin, "peak_bytes": _peak_bytes()}

    return work


def _matmul(steps: int, size: int = 1024) -> dict[str, Any]:
    """Multiply for about half a second a step; a "step" is the best single product, since that is a peak."""
    left, right = torch.ones(size, size), torch.ones(size, size)
    fastest = float("inf")
    for _ in range(30 * steps):
        begin = time.perf_counter()
        torch.mm(left, right)
        fastest = min(fastest, time.perf_counter() - begin)
    return {"seconds": fastest * steps, "flops": 2 * size**3}


def _peak_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
