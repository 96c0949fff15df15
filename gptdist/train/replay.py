"""One rank of a replay: ``python -m gptdist.train.replay CONFIG UNTIL REPORT [TARGET]``, started by torchrun.

The run of CONFIG goes on from its newest checkpoint to step UNTIL, saves nothing, and compares what it comes to with
the checkpoint in TARGET. REPORT says what was found; see ``gptdist resume-check``.
"""

import json
import logging
import os
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from gptdist.config.run import RunConfig
from gptdist.durable import write_whole
from gptdist.train.__main__ import main


def _rank(until: int, report: Path, target: Path | None, config: RunConfig, rank: int) -> None:
    warnings.filterwarnings("ignore", module=r"megatron|deepspeed|torch")
    logging.getLogger("gptdist").setLevel(logging.WARNING)
    from gptdist.device.device import prepare_deepspeed

    prepare_deepspeed()
    from gptdist.mesh.groups import destroy_mesh

    found = replay(config, until, target)
    if rank == 0:
        write_whole(report, json.dumps(found).encode())
    destroy_mesh()


def replay(config: RunConfig, until: int, target: Path | None) -> dict[str, Any]:
    """Do the steps to ``until``; return a record of each, and how far all tensors are from the checkpoint ``target``.

    Collective: every rank calls it.
    """
    from gptdist.checkpoint.difference import differences
    from gptdist.checkpoint.find import newest_whole
    from gptdist.train.build import build, join
    from gptdist.train.loop import train_step
    from gptdist.train.stop_signal import StopSignal
    from gptdist.train.swap_folder import scratch

    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    mesh, device = join(config, local_rank)
    steps: list[dict[str, Any]] = []
    tensors = None
    with scratch(config, mesh, local_rank):
        run = build(config, mesh, device, StopSignal())
        while run.state.step < until:
            run.state.advance(train_step(run))
            steps.append(run.state.recent[-1].tree())
        if target is not None:
            before, _ = newest_whole(config.checkpoints_folder)
            assert before is not None, "the replay began with it"
            tensors = differences(run.fragments, before=before, saved=target)
    return {"steps": steps, "tensors": tensors}


if __name__ == "__main__":
    config_path, until_step, report_path, *targets = sys.argv[1:]
    target_folder = Path(targets[0]) if targets else None
    sys.exit(main([config_path], partial(_rank, int(until_step), Path(report_path), target_folder)))
