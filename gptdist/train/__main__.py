"""One rank of a training run: ``python -m gptdist.train CONFIG [key=value …]``, started by torchrun, mpirun or srun."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from gptdist.config.load import read_config
from gptdist.config.run import RunConfig
from gptdist.device.parent_death import die_with_mpirun, die_with_torchrun
from gptdist.device.rank_environment import rank_environment
from gptdist.device.swapping import swap_problems
from gptdist.errors import EXIT_USER_ERROR, ConfigError, GptDistError, LaunchError
from gptdist.telemetry.metrics import set_up_logging


def main(arguments: list[str], work: Callable[[RunConfig, int], None] | None = None) -> int:
    """Train the run that ``arguments`` name, or do other ``work`` with its config and the rank; return the status."""
    die_with_torchrun()
    rank = int(os.environ.get("RANK", "0"))
    set_up_logging(rank)
    try:
        config = read_config(RunConfig, Path(arguments[0]), arguments[1:])
        problems = config.problems(int(os.environ.get("WORLD_SIZE", "1")))
        problems += config.telemetry.package_problems() + config.checkpoints.package_problems()
        problems += swap_problems(config.memory)
        if problems:
            raise ConfigError(f"{arguments[0]}: {problem}" for problem in problems)
        (work or _run)(config, rank)
    except GptDistError as error:
        who = "gptdist" if rank == 0 else f"gptdist rank {rank}"
        for line in error.problems:
            print(f"{who}: error: {line}", file=sys.stderr)  # noqa: T201 - the outermost frame of a rank
        return EXIT_USER_ERROR
    return 0


def _run(config: RunConfig, rank: int) -> None:
    warnings.filterwarnings("ignore", module=r"megatron|deepspeed|torch")
    from gptdist.device import megatron_on_cpu
    from gptdist.device.device import prepare_deepspeed

    prepare_deepspeed()
    megatron_on_cpu.install()
    from gptdist.mesh.groups import destroy_mesh
    from gptdist.train.build import build, join, lock_folder
    from gptdist.train.loop import train
    from gptdist.train.stop_signal import StopSignal
    from gptdist.train.swap_folder import scratch

    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    stop_signal = StopSignal()
    stop_signal.listen()
    lock = lock_folder(config.folder) if rank == 0 else None
    mesh, device = join(config, local_rank)
    with scratch(config, mesh, local_rank):
        run = build(config, mesh, device, stop_signal)
        nothing = contextlib.nullcontext()
        with run.metrics or nothing, run.keeper or nothing, run.saver, run.clock.watching_collectives():
            is_done = train(run)
        if run.ledger is not None:
            run.ledger.write("done" if is_done else "stopped", step=run.state.step)
    destroy_mesh()
    if lock is not None:
        lock.close()


def start(arguments: list[str]) -> int:
    """Find out which rank this is, and be it."""
    try:
        added = rank_environment(os.environ, parent=os.getppid())
    except LaunchError as error:
        for line in error.problems:
            print(f"gptdist: error: {line}", file=sys.stderr)  # noqa: T201 - the outermost frame of a rank
        return EXIT_USER_ERROR
    if added:
        os.environ.update(added)
        die_with_mpirun()
    return main(arguments)


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
