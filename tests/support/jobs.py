"""What ranks of a test do: train a few steps of a real run."""

from typing import TYPE_CHECKING, Any

from gptdist.config.run import RunConfig
from gptdist.data.sources import TrainingData  # noqa: F401 - loaded by the fork server too

if TYPE_CHECKING:
    from gptdist.train.run import Run


def open_run(tree: dict[str, Any]) -> "Run":
    """Build the run ``tree``, which goes on from the checkpoint that is there. Collective: every rank calls it."""
    from gptdist.train.build import build, join
    from gptdist.train.stop_signal import StopSignal

    config = RunConfig.from_tree(tree)
    mesh, device = join(config, local_rank=0)
    return build(config, mesh, device, StopSignal())


def train_steps(tree: dict[str, Any], until: int, save_at: int | None = None) -> list[tuple[int, float, float]]:
    """Train the run ``tree`` to step ``until``, resuming what is there; return (step, loss, grad_norm) of each step."""
    run = open_run(tree)
    seen = step_until(run, until, save_at)
    run.saver.finish()
    return seen


def step_until(run: "Run", until: int, save_at: int | None = None) -> list[tuple[int, float, float]]:
    """Do the same with a run that is open; a checkpoint may still be under way when this returns."""
    from gptdist.train.loop import save, train_step

    seen = []
    while run.state.step < until:
        result = train_step(run)
        run.state.advance(result)
        seen.append((run.state.step, result.loss, result.grad_norm))
        if run.state.step == save_at:
            save(run)
    return seen


def validation_loss(tree: dict[str, Any]) -> tuple[float, float]:
    """Return validation loss and bits per byte of the run ``tree`` as it stands."""
    from gptdist.train.evaluate import EvaluationOptions, evaluate

    run = open_run(tree)
    found = evaluate(
        run.engine.stage,
        run.validation,
        run.mesh,
        EvaluationOptions(run.config.batch.micro_batch_size, run.token_bytes, run.device.torch_device, run.rules),
    )
    return found.loss, found.bits_per_byte


def train_run(tree: dict[str, Any]) -> tuple[bool, int]:
    """Train the run ``tree`` as a rank of ``gptdist.train`` does; return whether it is done, and its step."""
    import contextlib

    from gptdist.train.loop import train

    run = open_run(tree)
    nothing = contextlib.nullcontext()
    with run.metrics or nothing, run.keeper or nothing, run.saver:
        is_done = not train(run)
    return is_done, run.state.step
