"""Room that a run's checkpoints need, from its config alone."""

import math

from gptdist.config.activations import FP32_BYTES
from gptdist.config.run import RunConfig
from gptdist.model.arithmetic import num_parameters

_BF16_BYTES = 2
_MOMENTS = {"adamw": 2, "lion": 1, "muon": 2, "adafactor": 0}
"""Values that an optimizer keeps of a weight. Muon keeps one of a hidden matrix's, two of all others: this is the most;
adafactor's means of rows and columns are too few to count."""


def checkpoint_bytes(config: RunConfig) -> int:
    """Return the bytes of a checkpoint's tensors: weights in fp32, and the optimizer's moments."""
    moment = _BF16_BYTES if config.optimizer.moment_precision == "bf16" else FP32_BYTES
    return num_parameters(config.model) * (FP32_BYTES + _MOMENTS[config.optimizer.kind] * moment)


def kept_checkpoints(config: RunConfig) -> int:
    """Return how many checkpoints lie in the run's folder at a time at most, one that is being written included.

    What ``checkpoints.keep.for_hours`` keeps depends on the speed, and is not counted.
    """
    steps, every, keep = config.training.train_steps, config.intervals.save_steps, config.checkpoints.keep
    saves = -(-steps // every)
    if keep.keeps_everything:
        return saves
    for_good = 0 if keep.every_steps is None else steps // math.lcm(keep.every_steps, every)
    return min(saves, (keep.last or 0) + (keep.best or 0) + for_good + 1)


def room_problem(config: RunConfig, *, there: int, free_bytes: int) -> str | None:
    """Return why the rest of the run's checkpoints have no room; None: they have.

    Args:
        config: of the run.
        there: checkpoints in its folder already.
        free_bytes: of the folder's file system.
    """
    each, kept = checkpoint_bytes(config), kept_checkpoints(config)
    needed = each * max(1, kept - there)
    if free_bytes >= needed:
        return None
    return (
        f"{config.folder}: {free_bytes / 1e9:.3g} GB are free, but the run needs {needed / 1e9:.3g} GB more: {kept} "
        f"checkpoints of {each / 1e9:.3g} GB at a time, of which {there} are there; free space, or keep fewer "
        f"(checkpoints.keep.last)"
    )
