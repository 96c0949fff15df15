"""Turn a RunConfig into a Run: groups, model, engine, data, and the newest checkpoint put in."""

import contextlib
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from ruamel.yaml import YAML
from torch import nn

from gptdist.checkpoint.after_commit import Keeper
from gptdist.checkpoint.fragments import OptimizerFragments
from gptdist.checkpoint.identity import RunIdentity, changes
from gptdist.checkpoint.proof import order_digest
from gptdist.checkpoint.prove import source_positions
from gptdist.checkpoint.saver import Saver
from gptdist.config.activations import RankShare
from gptdist.config.precision import precision_problems
from gptdist.config.recomputation import budget_problems, recomputed, tell
from gptdist.config.run import RunConfig
from gptdist.data.attempts import INITIAL_WEIGHTS, START, start_facts
from gptdist.data.order import SampleOrder
from gptdist.data.plan import DataPlan, check_epochs
from gptdist.data.rules import SampleRules
from gptdist.data.sources import TrainingData, check_tokenizer, validation_sources
from gptdist.device.device import Device, choose_device, peak_flops
from gptdist.device.freed_memory import keep_freed_memory
from gptdist.device.swapping import check_locked_memory, load_async_io
from gptdist.errors import ConfigError
from gptdist.mesh.groups import Mesh, ModelParallelUnit, gather_texts, make_mesh
from gptdist.mesh.layout import Layout
from gptdist.model.arithmetic import num_parameters
from gptdist.model.gpt import LanguageModel, transformer_config
from gptdist.model.lora import add_adapters
from gptdist.model.norms import sum_partial_gradients
from gptdist.model.parameters import LocalParameter, initialise, local_parameters
from gptdist.telemetry.clock import StepClock
from gptdist.telemetry.heartbeat import Heartbeat, node_name
from gptdist.telemetry.ledger import Ledger, read_json_lines
from gptdist.telemetry.metrics import Metrics
from gptdist.telemetry.software import code_digest, versions
from gptdist.telemetry.wandb_run import WandbRun
from gptdist.train.adafactor import Adafactor
from gptdist.train.distillation import open_distillation, record_teacher
from gptdist.train.engine import Engine, deepspeed_config
from gptdist.train.muon import Muon
from gptdist.train.randomness import forbid_nondeterminism, seed_layers, seed_micro_batch
from gptdist.train.restore import restore
from gptdist.train.run import Run, TrainState
from gptdist.train.sampler import Sampler
from gptdist.train.stop_signal import StopSignal
from gptdist.train.swap_folder import parameter_bytes
from gptdist.train.zeros import hold_zeros, zeros_to_hold

logger = logging.getLogger(__name__)


def join(config: RunConfig, local_rank: int) -> tuple[Mesh, Device]:
    """Meet the other ranks. Collective: every rank calls it, with the environment that torchrun sets."""
    device = choose_device(config.training.device, config.training.precision, local_rank)
    if device.kind == "cpu":
        keep_freed_memory()
    problems = precision_problems("bf16" if device.dtype == torch.bfloat16 else "", config.parallel.zero_stage)
    problems += budget_problems(config.memory, config.model, config.parallel, _share(config, device))
    if problems:
        raise ConfigError(problems)
    if config.memory.swaps:
        load_async_io(local_rank)
    if config.training.deterministic:
        forbid_nondeterminism()
    timeout = timedelta(seconds=config.training.collective_timeout_seconds)
    if not dist.is_initialized():
        dist.init_process_group(device.backend, timeout=timeout)
    deepspeed.init_distributed(device.backend, timeout=timeout, verbose=False)
    return make_mesh(Layout.of(config.parallel, dist.get_world_size()), timeout), device


def build(
    config: RunConfig, mesh: Mesh, device: Device, stop_signal: StopSignal, heartbeat: Heartbeat | None = None
) -> Run:
    """Build everything and restore the newest whole checkpoint of the run's folder. Collective: every rank calls it.

    Raises:
        GptDistError: data, tokenizer or checkpoint do not fit, or a source would be read too often, on every rank.
    """
    heartbeat = heartbeat or Heartbeat(None, mesh.rank)
    heartbeat.enter("build")
    tokenizer = check_tokenizer(config)
    data = TrainingData(config)
    validation = validation_sources(config)
    identity = RunIdentity.of(config, tokenizer, data)
    model = build_model(config, mesh, device)
    engine = Engine(model, config, mesh, device.dtype)
    locals_ = _parameters_of_rank(engine.module, config, mesh)
    fragments = OptimizerFragments(engine.optimizer, locals_, config.optimizer)
    if isinstance(fragments.torch_optimizer, Muon | Adafactor):
        fragments.torch_optimizer.attach(fragments, mesh, config.model)
    peak = peak_flops(device)
    state = restore(config, fragments, identity, data, mesh)
    state.zeros = zeros_to_hold(fragments, mesh, state) if config.training.keep_zeros else {}
    ledger = Ledger(config.folder) if mesh.is_lead else None  # which may have come with the checkpoint
    engine.stage.share_embedding()
    distillation = open_distillation(config, tokenizer, data, engine.module, mesh, device)
    # megatron-core asks for a seeded generator even where nothing is dropped, and an evaluation may come first.
    seed_micro_batch(config.seed, state.consumed_samples, mesh.place, engine.stage.first_layer)
    plan = check_epochs(config, data.order, step=state.step, consumed_samples=state.consumed_samples)
    hosts = sorted(set(gather_texts(node_name())))
    if ledger is not None:
        record_start(ledger, identity, mesh, state, plan=plan, order=data.order, hosts=hosts)
    logger.info("data: %s", plan.summary())
    _tell(config, mesh.layout, device, peak)
    keeper = _keeper(config, ledger, state)
    return Run(
        config=config,
        mesh=mesh,
        device=device,
        engine=engine,
        fragments=fragments,
        saver=Saver(config, fragments, identity, mesh, ledger=ledger, keeper=keeper),
        parameters=locals_,
        data=data,
        validation=validation,
        token_bytes=tokenizer.token_byte_lengths(),
        rules=SampleRules.of(config.data, tokenizer),
        identity=identity,
        state=state,
        clock=StepClock(device.torch_device, heartbeat.enter),
        heartbeat=heartbeat,
        stop_signal=stop_signal,
        sampler=Sampler.of(config, tokenizer),
        distillation=distillation,
        peak_flops=peak[0] if peak else None,
        metrics=_open_metrics(config, ledger, state),
        ledger=ledger,
        keeper=keeper,
    )


def _tell(config: RunConfig, layout: Layout, device: Device, peak: tuple[float, str] | None) -> None:
    if config.memory.recompute == "budget":
        for line in tell(config.memory, config.model, config.parallel, _share(config, device)):
            logger.info("%s", line)
    logger.info(
        "%s: %s parameters, %s, ZeRO %d, %s on %s; %s",
        config.name,
        f"{num_parameters(config.model):,}",
        layout,
        config.parallel.zero_stage,
        str(device.dtype).removeprefix("torch."),
        device.kind,
        f"peak {peak[0] / 1e9:,.0f} GFLOP/s a rank ({peak[1]})" if peak else "peak FLOP/s unknown: no mfu",
    )


def _parameters_of_rank(model: nn.Module, config: RunConfig, mesh: Mesh) -> list[LocalParameter]:
    size, place = mesh.layout.tensor_parallel_size, mesh.place
    return list(local_parameters(model, config.model, size, tp_rank=place.tp_rank, expert_part=mesh.expert_part))


def build_model(config: RunConfig, mesh: Mesh, device: Device) -> LanguageModel:
    """Return this rank's part of the model with its initial weights, on its device."""
    shape = config.model
    again = recomputed(config.memory, shape, config.parallel, _share(config, device), mesh.place.pp_rank)
    with _partitioned_construction(config, mesh, device):
        transformer = transformer_config(
            shape,
            mesh,
            device.dtype,
            sequence_parallel=config.parallel.sequence_parallel,
            full_layers=again.full_layers,
        )
        model = LanguageModel(
            shape,
            transformer,
            mesh,
            again=again,
            z_loss=config.training.z_loss,
        )
    if config.lora is not None:
        add_adapters(model, config.lora, tensor_parallel_size=mesh.layout.tensor_parallel_size)
    if config.parallel.zero_stage < 3:
        model = model.to(device=device.torch_device, dtype=device.dtype)
    initialise(
        model,
        shape,
        config.seed,
        tensor_parallel_size=mesh.layout.tensor_parallel_size,
        tp_rank=mesh.place.tp_rank,
        copy_rank=mesh.copy_rank,
        expert_part=mesh.expert_part,
    )
    if shape.hidden_dropout or shape.attention_dropout:
        seed_layers(model)
    if config.parallel.sequence_parallel:
        sum_partial_gradients(model, mesh)
    if config.training.keep_zeros:
        hold_zeros(model)
    return model


def _share(config: RunConfig, device: Device) -> RankShare:
    return config.rank_share(on_gpu=device.kind == "cuda", value_bytes=device.dtype.itemsize)


def _partitioned_construction(config: RunConfig, mesh: Mesh, device: Device) -> Any:
    """Under ZeRO-3 no rank ever holds the whole model: parameters are cut as they are made."""
    if config.parallel.zero_stage < 3:
        return contextlib.nullcontext()
    check_locked_memory(parameter_bytes(config, mesh, device.dtype))
    # No dtype: DeepSpeed 0.19 takes bf16 for any that is passed on a CPU. It reads the right one from the config.
    return deepspeed.zero.Init(
        data_parallel_group=mesh.copies_group,
        config_dict_or_path=deepspeed_config(config, mesh, device.dtype),
        mpu=ModelParallelUnit(mesh),
    )


def record_start(
    ledger: Ledger,
    identity: RunIdentity,
    mesh: Mesh,
    state: TrainState,
    *,
    plan: DataPlan,
    order: SampleOrder,
    hosts: Sequence[str] = (),
) -> None:
    """Note what ``gptdist data trace`` and ``gptdist audit`` need, whose weights the run begins with, and on what.

    Args:
        ledger: of the run.
        identity: with the config.
        mesh: the ranks.
        state: where the attempt begins.
        plan: with the share of each source.
        order: of the samples.
        hosts: that the ranks are on; none where a run goes back to a checkpoint, and stays on its hosts.
    """
    positions = source_positions(order, state.consumed_samples)
    if state.initial_weights is not None and state.step == 0:
        ledger.write(INITIAL_WEIGHTS, **state.initial_weights.tree())
    record_teacher(ledger, identity)
    facts = start_facts(
        identity.config,
        identity.data_fingerprints,
        step=state.step,
        consumed_samples=state.consumed_samples,
        layout=mesh.layout,
        shares={source.name: source.share for source in plan.sources},
    )
    before = [event for event in read_json_lines(ledger.path) if event.get("event") == START]
    software = {"hosts": list(hosts), "code": code_digest(), "versions": versions()} if hosts else {}
    ledger.write(
        START,
        **facts,
        from_attempt=state.saved_by,
        order=order_digest(positions),
        changed=changes(before[-1].get("config", {}), identity.config) if before else [],
        **software,
    )


def _keeper(config: RunConfig, ledger: Ledger | None, state: TrainState) -> Keeper | None:
    if ledger is None:
        return None
    keeper = Keeper(config.checkpoints_folder, config.checkpoints, config.name, ledger)
    if state.step:
        keeper.after_resume(state.step)
    return keeper


def _open_metrics(config: RunConfig, ledger: Ledger | None, state: TrainState) -> Metrics | None:
    if ledger is None:
        return None
    with (config.folder / "config.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(config.tree(), file)
    settings = config.telemetry.wandb
    return Metrics(
        config.folder,
        ledger.attempt,
        train_steps=config.training.train_steps,
        first_step=state.step,
        tensorboard=config.telemetry.tensorboard,
        wandb=WandbRun(config.folder, config.name, settings, config.tree()) if settings else None,
    )
