"""The training loop: step, advance, log, evaluate, save, stop."""

import logging
import math

import torch
import torch.distributed as dist

from gptdist.checkpoint.manifest import Progress
from gptdist.checkpoint.proof import ledger_facts
from gptdist.data.batches import Batch, cut_rows
from gptdist.device.freed_memory import FreedMemory
from gptdist.mesh.groups import max_over_ranks
from gptdist.model.arithmetic import flops_per_token
from gptdist.telemetry.profile import StepProfiler
from gptdist.train.drift import check_equal_weights
from gptdist.train.early_stopping import has_ended, note_evaluation, tell_end
from gptdist.train.evaluate import EvaluationOptions, EvaluationStoppedError, evaluate
from gptdist.train.masking import mean_factor
from gptdist.train.prove import proof_now
from gptdist.train.randomness import seed_micro_batch
from gptdist.train.rewind import rewind_if_needed
from gptdist.train.run import Run, StepResult
from gptdist.train.samples import log_samples
from gptdist.train.schedule import Position, learning_rate
from gptdist.train.skip import guarded_update, record_skip
from gptdist.train.spent import take_spent
from gptdist.train.stop_signal import StopReason
from gptdist.train.zeros import zeros_now

logger = logging.getLogger(__name__)


def train(run: Run) -> StopReason:
    """Step until ``train_steps``, a request to stop, or no more progress in validation; return why before the end.

    ``StopReason.NONE`` is a run that is done. Collective: every rank calls it.
    """
    state, every = run.state, run.config.intervals
    train_steps = run.config.training.train_steps
    if has_ended(run):
        tell_end(run, now=False)
        return StopReason.NONE
    freed = FreedMemory(is_used=run.device.kind == "cpu")
    profiler = StepProfiler(run.config.folder, run.config.telemetry.profile_steps, run.mesh.rank)
    # A run that was stopped in an evaluation begins with it.
    stopping, ends_early = _measure(run, agreed_reason(run), is_resumed=True)
    state.since.restart()
    while state.step < train_steps and not (stopping or ends_early):
        with profiler.step(state.step + 1):
            result = train_step(run)
        state.advance(result)
        freed.look()
        run.heartbeat.step_done(state.step, run.clock.take_work_seconds())
        _tell_repetition(run, result.samples)

        is_last = state.step == train_steps
        if state.step == 1 or state.step % every.log_steps == 0 or is_last or result.refusal is not None:
            log_step(run, result)
        record_skip(run, result)
        has_rewound = rewind_if_needed(run, result)
        is_last = is_last and not has_rewound
        if state.step % every.check_steps == 0 or is_last:
            check_equal_weights(run.parameters, run.mesh, state.step, run.engine.stage.shared_embedding)
        stopping = result.stopping
        if not has_rewound:
            stopping, ends_early = _measure(run, stopping)
        is_final = bool(stopping) or is_last or ends_early
        if is_final or has_rewound or state.step % every.save_steps == 0:
            with run.clock.part("checkpoint"):
                save(run, is_final=is_final)
    profiler.close(state.step)
    if ends_early:
        tell_end(run, now=True)
    elif stopping and (state.step < train_steps or state.validation_step != state.step):
        if run.mesh.is_lead:
            logger.warning("stopped after step %d by %s; the same command resumes", state.step, stopping.text)
        return stopping
    return StopReason.NONE


def agreed_reason(run: Run) -> StopReason:
    """Return why any rank was asked to stop, if one was. Collective: every rank calls it."""
    return StopReason(max_over_ranks(run.stop_signal.reason))


def _measure(run: Run, stopping: StopReason, *, is_resumed: bool = False) -> tuple[StopReason, bool]:
    """Evaluate and write texts where that is due, as long as nobody asks to stop.

    Returns why it was broken off, if it was, and whether the validation loss ends the run. Collective: every rank calls
    it.
    """
    state, every = run.state, run.config.intervals
    is_last, is_counted = state.step == run.config.training.train_steps, state.step % every.eval_steps == 0
    is_due = (is_counted or is_last) and state.step > 0 and not (is_resumed and state.validation_step == state.step)
    with run.clock.part("evaluation"):
        if is_due:
            stopping = log_evaluation(run)
        if not stopping and not is_resumed:
            log_samples(run, is_last=is_last)
    return stopping, is_due and is_counted and not stopping and note_evaluation(run)


def train_step(run: Run) -> StepResult:
    """Do one optimizer step on the next global batch. Collective: every rank calls it.

    A step that the guards refuse leaves the weights as they are.
    """
    config, state = run.config, run.state
    samples, length = run.step_samples, config.model.seq_length
    position = Position(state.step, state.consumed_samples * length, samples * length)
    train_steps = config.training.train_steps
    lr = learning_rate(
        position, config.optimizer, config.schedule, train_steps=train_steps, train_tokens=config.train_tokens
    )
    run.engine.set_learning_rate(lr)
    run.engine.set_batch_size(samples)
    seq_length = config.seq_lengths.at(state.consumed_samples)
    # Losses, how many ranks were asked to stop for each reason, and what has become of the save under way.
    total = torch.zeros(3 + len(StopReason), dtype=torch.float64)
    with run.clock.part("data"):
        factor = mean_factor(run)
    if run.distillation is not None:
        run.distillation.begin_step(state.step, state.guards, factor)

    def load(micro_batch: int) -> Batch:
        first = run.first_sample(micro_batch)
        with run.clock.part("data"):
            rows = cut_rows(run.data.rows(first, config.batch.micro_batch_size), seq_length)
            batch = Batch.of(rows, run.device.torch_device, run.rules, run.mesh.context_part)
        if run.distillation is not None:
            run.distillation.teach(batch, rows, first)
        seed_micro_batch(config.seed, first, run.mesh.place, run.engine.stage.first_layer)
        return batch

    with run.clock.part("forward_backward"):
        total[0] = run.engine.run_micro_batches(run.num_micro_batches, load, factor)
    ranks_with_loss = run.mesh.layout.world_size // run.mesh.layout.pipeline_parallel_size
    total[0] /= run.num_micro_batches * ranks_with_loss
    total[1 + run.stop_signal.reason] = 1.0
    total[-2:] = torch.tensor(run.saver.standing())
    if run.mesh.layout.world_size > 1:
        summed = total.to(run.device.torch_device)
        dist.all_reduce(summed)
        total = summed.cpu()
    with run.clock.part("checkpoint"):
        run.saver.hear(total[-2:].tolist())
    with run.clock.part("optimizer"):
        verdict = guarded_update(run, loss=float(total[0]))
    if run.engine.overflowed and run.mesh.is_lead:
        logger.warning(
            "step %d: gradients overflow fp16, no update; loss scale %g", state.step + 1, run.engine.loss_scale
        )
    return StepResult(
        loss=verdict.loss,
        grad_norm=verdict.grad_norm,
        lr=lr,
        samples=samples,
        stopping=max(reason for reason in StopReason if total[1 + reason]),
        refusal=verdict.refusal,
    )


def log_step(run: Run, result: StepResult) -> None:
    """Record the last step, with speeds averaged since the last record. Collective: every rank calls it."""
    model, state, world_size = run.config.model, run.state, run.mesh.layout.world_size
    tokens = state.since.samples * model.seq_length
    spent = take_spent(run)
    learnt = {} if run.distillation is None else run.distillation.numbers()
    if run.metrics is None:
        return
    tokens_per_second = tokens / spent.seconds
    seq_length = run.config.seq_lengths.at(state.consumed_samples - result.samples)
    flops_per_second = flops_per_token(model, seq_length) * tokens_per_second / world_size
    numbers = {
        "consumed_samples": state.consumed_samples,
        "consumed_tokens": state.consumed_samples * model.seq_length,
        "global_batch_size": result.samples,
        "seq_length": seq_length,
        **result.finite_numbers(),
        **learnt,
        "skipped": result.refusal is not None,
        "lr": result.lr,
        **({} if run.engine.loss_scale is None else {"loss_scale": run.engine.loss_scale}),
        "tokens_per_second": tokens_per_second,
        "model_tflops": flops_per_second / 1e12,
        "mfu": flops_per_second / run.peak_flops if run.peak_flops else None,
        **spent.numbers,
        "checkpoint_write_seconds": run.saver.take_write_seconds(),
        **{f"epochs_{name}": epochs for name, epochs in _epochs(run, state.consumed_samples).items()},
    }
    run.metrics.log("train", state.step, numbers)
    run.metrics.advance(state.step)


def _epochs(run: Run, samples: int) -> dict[str, float]:
    """Return how often each source has been read once ``samples`` are consumed."""
    counts = run.data.order.mixture.counts_among(samples)
    names = [source.name for source in run.config.data.sources]
    return {name: count / windows for name, count, windows in zip(names, counts, run.data.order.windows, strict=True)}


def _tell_repetition(run: Run, samples: int) -> None:
    """Warn on rank 0 where a source has begun to come again within the last ``samples``."""
    if not run.mesh.is_lead:
        return
    now = run.state.consumed_samples
    before = _epochs(run, now - samples)
    for name, epochs in _epochs(run, now).items():
        begun = math.ceil(epochs)
        if begun > max(1, math.ceil(before[name])):
            logger.warning("data: '%s' has been read whole; epoch %d of it has begun", name, begun)


def log_evaluation(run: Run) -> StopReason:
    """Measure and record the validation loss, or return why that was broken off. Collective: every rank calls it."""
    stopping = StopReason.NONE

    def goes_on() -> bool:
        nonlocal stopping
        run.heartbeat.enter("evaluation")
        stopping = agreed_reason(run)
        return not stopping

    try:
        found = evaluate(
            run.engine.stage,
            run.validation,
            run.mesh,
            EvaluationOptions(
                run.config.batch.micro_batch_size, run.token_bytes, run.device.torch_device, run.rules, goes_on
            ),
        )
    except EvaluationStoppedError:
        return stopping
    leading = run.config.data.validation_set
    run.state.validation_loss, run.state.validation_step = found.leading(leading)[0], run.state.step
    if run.metrics is not None:
        run.metrics.log("validation", run.state.step, found.numbers(leading))
    return StopReason.NONE


def save(run: Run, *, is_final: bool = False) -> None:
    """Begin a checkpoint of the state after the last step; the final one is on the disk when this returns.

    Collective: every rank calls it.
    """
    state = run.state
    proof, zeros = proof_now(run), zeros_now(run)
    run.saver.save(
        Progress(
            step=state.step,
            consumed_samples=state.consumed_samples,
            consumed_tokens=state.consumed_samples * run.config.model.seq_length,
            optimizer_step=run.fragments.optimizer_step(),
            loss_scale=run.fragments.loss_scale(),
            loss=state.loss,
            validation_loss=state.validation_loss,
            validation_step=state.validation_step,
            lowest=state.lowest,
            guards=state.guards.record(),
            initial_weights=state.initial_weights,
            proof=proof,
            zeros=zeros,
        ),
        **ledger_facts(proof),
    )
    if is_final:
        run.saver.finish()
