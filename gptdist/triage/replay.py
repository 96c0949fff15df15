"""Train the steps between a checkpoint and a step again, in a folder that is thrown away, by the loop that did them."""

import contextlib
import os
from pathlib import Path

from gptdist.checkpoint.find import step_folder_name
from gptdist.checkpoint.read import CheckpointReader
from gptdist.config.launch import LaunchConfig
from gptdist.config.retention import KeepConfig
from gptdist.config.run import RunConfig
from gptdist.config.telemetry import TelemetryConfig
from gptdist.data.attempts import Attempt
from gptdist.device.device import prepare_deepspeed
from gptdist.mesh.groups import destroy_mesh

MOST_STEPS = 50
"""Steps that are replayed at most."""


def why_not(attempt: Attempt, reader: CheckpointReader, until: int) -> str | None:
    """Return why the steps from the checkpoint to ``until`` are not replayed; None where they can be."""
    progress = reader.manifest.progress
    if attempt.world_size > 1:
        return f"the run had {attempt.world_size} ranks, and a replay here has one"
    if until - progress.step > MOST_STEPS:
        return f"these are {until - progress.step} steps, and {MOST_STEPS} are replayed at most"
    if attempt.first_step > progress.step or attempt.first_sample(progress.step + 1) != progress.consumed_samples:
        return f"attempt {attempt.number} did not go through this checkpoint"
    return None


def replay(config: RunConfig, checkpoint: Path, until: int, scratch: Path) -> Path:
    """Go on from ``checkpoint`` to step ``until`` as one rank, and return the step folder that it leads to.

    Args:
        config: of the attempt.
        checkpoint: step folder of the run; it is only read.
        until: the last step.
        scratch: folder for the replayed run's own.

    Raises:
        GptDistError: the run cannot be built here.
    """
    prepare_deepspeed()
    # megatron-core and DeepSpeed look at the device as they are imported.
    from gptdist.train.build import build, join
    from gptdist.train.inference import lone_process_group
    from gptdist.train.loop import save, train_step
    from gptdist.train.stop_signal import StopSignal
    from gptdist.train.swap_folder import scratch as swapped

    folder = scratch / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / checkpoint.name).symlink_to(checkpoint.absolute(), target_is_directory=True)
    own = {
        "run_dir": folder,
        "checkpoints": config.checkpoints.model_copy(update={"keep": KeepConfig(), "remote": None}),
        "telemetry": TelemetryConfig(tensorboard=False),
        "launch": LaunchConfig(ranks_per_node=1),
    }
    config = config.model_copy(update=own)
    os.environ.setdefault("LOCAL_RANK", "0")  # which DeepSpeed asks for
    lone_process_group()
    mesh, device = join(config, local_rank=0)
    with contextlib.ExitStack() as stack:
        stack.callback(destroy_mesh)
        stack.enter_context(swapped(config, mesh, local_rank=0))
        run = build(config, mesh, device, StopSignal())
        nothing = contextlib.nullcontext()
        with run.metrics or nothing, run.keeper or nothing, run.saver:
            while run.state.step < until:
                run.state.advance(train_step(run))
            save(run, is_final=True)
    return folder / "checkpoints" / step_folder_name(until)
