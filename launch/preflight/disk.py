"""Room that a run's checkpoints need, from its config alone."""

import math

from gptdist.config.run import RunConfig
from gptdist.model.checkpoint_size import checkpoint_bytes


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
