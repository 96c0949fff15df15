"""One rank of a training run: ``python -m gptdist.train CONFIG [key=value …]``, started by torchrun, mpirun or srun."""

import contextlib
import gc
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from gptdist.config.load import read_config
from gptdist.config.run import RunConfig
from gptdist.device.parent_death import die_with_mpirun, die_with_torchrun
from gptdist.device.rank_environment import rank_environment
from gptdist.device.swapping import swap_problems
from gptdist.errors import (
    EXIT_FAILED,
    EXIT_REQUEUE,
    EXIT_STOPPED,
    EXIT_USER_ERROR,
    ConfigError,
    GptDistError,
    LaunchError,
)
from gptdist.telemetry.heartbeat import Heartbeat, Phase
from gptdist.telemetry.metrics import set_up_logging
from gptdist.telemetry.rank_log import FailureKind, failure_now, log_folder, record_failure
from gptdist.train.stop_signal import StopReason, StopSignal

Work = Callable[[RunConfig, int], None]


def main(arguments: list[str], work: Work | None = None) -> int:
    """Train the run that ``arguments`` name, or do other ``work`` with its config and the rank; return the status.

    Under a launcher of ours a run that was stopped ends with 0, as torchrun takes all else for a failure: the launcher
    knows from the heartbeat.
    """
    die_with_torchrun()
    rank, folder = int(os.environ.get("RANK", "0")), log_folder()
    heartbeat, stop_signal = Heartbeat.of_environment(rank), StopSignal()
    if work is None:
        stop_signal.listen()  # at once: what is imported later takes seconds
    set_up_logging(rank, folder)
    try:
        config = _checked_config(arguments)
        reason = StopReason.NONE
        if work is None:
            reason = _run(config, rank, heartbeat, stop_signal)
        else:
            work(config, rank)
    except GptDistError as error:
        who = "gptdist" if rank == 0 else f"gptdist rank {rank}"
        lines = [f"{who}: error: {line}" for line in error.problems]
        _leave(heartbeat, rank, folder, "refused", "\n".join(lines))
        return EXIT_USER_ERROR
    except KeyboardInterrupt:  # the second one; the first asks for a stop that saves
        heartbeat.enter("stopped")
        return EXIT_STOPPED
    except Exception:
        _leave(heartbeat, rank, folder, "error", traceback.format_exc())
        return EXIT_FAILED
    phase: Phase = "done" if not reason else "stopped" if reason.is_by_person else "requeue"
    heartbeat.enter(phase)
    if folder is not None:
        return 0
    return {"done": 0, "stopped": EXIT_STOPPED, "requeue": EXIT_REQUEUE}[phase]


def _checked_config(arguments: list[str]) -> RunConfig:
    config = read_config(RunConfig, Path(arguments[0]), arguments[1:])
    problems = config.problems(int(os.environ.get("WORLD_SIZE", "1")))
    problems += config.telemetry.package_problems() + config.checkpoints.package_problems()
    problems += swap_problems(config.memory)
    if problems:
        raise ConfigError(f"{arguments[0]}: {problem}" for problem in problems)
    return config


def _leave(heartbeat: Heartbeat, rank: int, folder: Path | None, kind: FailureKind, text: str) -> None:
    """Say why this rank ends: to its launcher, which shows the first failure of all ranks, or on the console."""
    if folder is None:
        sys.stderr.write(f"{text.rstrip()}\n")
    else:
        failure = failure_now(kind, rank, step=heartbeat.step, phase=heartbeat.phase, text=text.rstrip())
        record_failure(folder, failure)
    heartbeat.enter("refused" if kind == "refused" else "failed")


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Import without the garbage collector, which walks through all that is loaded, again and again, and frees little.

    That is a fifth of the processor time of a rank's imports. What is there at the end is never walked through.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _run(config: RunConfig, rank: int, heartbeat: Heartbeat, stop_signal: StopSignal) -> StopReason:
    warnings.filterwarnings("ignore", module=r"megatron|deepspeed|torch")
    with uncollected():
        from gptdist.device.device import prepare_deepspeed

        prepare_deepspeed()
        from gptdist.mesh.groups import destroy_mesh
        from gptdist.train.build import build, join
        from gptdist.train.lock import lock_folder
        from gptdist.train.loop import train
        from gptdist.train.swap_folder import scratch

    if stop_signal.reason:
        return stop_signal.reason  # all others have it, too, or torchrun ends them
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    lock = lock_folder(config.folder) if rank == 0 else None
    if rank == 0:
        stop_signal.watch(config.folder)
    heartbeat.enter("join")
    mesh, device = join(config, local_rank)
    with scratch(config, mesh, local_rank):
        run = build(config, mesh, device, stop_signal, heartbeat)
        nothing = contextlib.nullcontext()
        with run.metrics or nothing, run.keeper or nothing, run.saver, run.clock.watching_collectives():
            reason = train(run)
            heartbeat.enter("finish")
        if run.ledger is not None:
            facts = {"step": run.state.step, "consumed_samples": run.state.consumed_samples}
            if reason:
                run.ledger.write("stopped", **facts, reason=reason.name.lower())
            else:
                run.ledger.write("done", **facts)
    destroy_mesh()
    if lock is not None:
        lock.close()
    return reason


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
