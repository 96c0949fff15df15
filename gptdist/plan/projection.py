"""What a run will need: memory of each rank, time of a step, days, energy, cost, checkpoints."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from gptdist.config.model import ModelConfig
from gptdist.config.run import RunConfig
from gptdist.errors import ConfigError
from gptdist.mesh.layout import Layout
from gptdist.model.arithmetic import flops_per_token, num_active_parameters, num_parameters
from gptdist.model.checkpoint_size import checkpoint_bytes
from gptdist.plan.constants import FITTED, MEMORY_BAND, TIME_BAND, Constants
from gptdist.plan.device import Device, Network
from gptdist.plan.rank_memory import RankMemory, rank_memory
from gptdist.plan.step_time import StepTime, rank_parameters, step_time
from gptdist.plan.workload import Precision, Workload, workload_of

SECONDS_PER_DAY = 86_400
JOULES_PER_KILOWATT_HOUR = 3.6e6
Verdict = Literal["fits", "tight", "does not fit"]


@dataclass(frozen=True)
class Cluster:
    """Where a run is to be launched."""

    device: Device
    num_nodes: int
    ranks_per_node: int
    network: Network | None = None
    constants: Constants = FITTED

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return self.num_nodes * self.ranks_per_node

    @property
    def on_gpu(self) -> bool:
        """Whether the device is one."""
        return self.device.architecture != "cpu"

    @cached_property
    def rank_device(self) -> Device:
        """What one rank has."""
        return self.device.shared(self.ranks_per_node)

    def precision(self, config: RunConfig) -> Precision:
        """Return the number format that the run will compute in here."""
        asked = config.training.precision
        if asked == "auto":
            return "bf16" if self.on_gpu else "fp32"
        return asked

    def problems(self, config: RunConfig) -> list[str]:
        """Return why ``config`` cannot run here, its own problems with so many ranks included."""
        bad = []
        if self.num_nodes < 1:
            bad.append(f"--nodes: must be at least 1, got {self.num_nodes}")
        if self.on_gpu and self.ranks_per_node > self.device.devices_per_node:
            bad.append(
                f"launch.ranks_per_node ({self.ranks_per_node}): a node has {self.device.devices_per_node} x "
                f"{self.device.name}; use at most that many"
            )
        if self.on_gpu and config.training.device == "cpu":
            bad.append(f"training.device: cpu, but the plan is for {self.device.name}; use auto or cuda")
        if bad:
            return bad
        precision = self.precision(config)
        if self.device.flops(precision) is None:
            known = [name for name, value in self.device.peak_flops.tree().items() if value is not None]
            bad.append(
                f"training.precision: {self.device.name} does not compute in {precision}; use one of {', '.join(known)}"
            )
        return bad + config.problems(self.world_size)


@dataclass(frozen=True)
class Projection:
    """The plan of one run on one cluster."""

    config: RunConfig
    cluster: Cluster
    layout: Layout
    workload: Workload
    memory: tuple[RankMemory, ...]
    """Of each pipeline stage."""

    time: StepTime

    @property
    def peak(self) -> RankMemory:
        """The stage that needs most."""
        return max(self.memory, key=lambda stage: stage.total)

    @property
    def capacity(self) -> int:
        """Bytes that a rank may use."""
        return self.cluster.rank_device.memory_bytes

    @property
    def verdict(self) -> Verdict:
        """``tight``: the band of error reaches beyond the device's memory."""
        if self.peak.total > self.capacity:
            return "does not fit"
        return "tight" if self.peak.total * (1 + MEMORY_BAND) > self.capacity else "fits"

    @property
    def tokens_per_second(self) -> float:
        """Of all ranks."""
        return self.workload.step_tokens / self.time.total

    @property
    def model_flops(self) -> float:
        """FLOP/s of one rank that the model needs, nothing computed again."""
        return self.tokens_per_second * flops_per_token(self.config.model) / self.layout.world_size

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation: those FLOP/s over the device's peak in the run's format."""
        return self.model_flops / self._peak_flops

    @property
    def hfu(self) -> float:
        """Hardware FLOPs utilisation: with those that are computed again."""
        return self.mfu * hardware_factor(self.workload)

    @property
    def _peak_flops(self) -> float:
        peak = self.cluster.rank_device.flops(self.workload.precision)
        assert peak is not None, "a format that was not checked"
        return peak

    @property
    def train_tokens(self) -> int:
        """Of the whole run."""
        return self.config.train_tokens

    @property
    def days(self) -> float:
        """Days of the whole run, without validation, failures and restarts."""
        return self.train_tokens / self.tokens_per_second / SECONDS_PER_DAY

    @property
    def device_hours(self) -> float:
        """Of all devices; of CPU nodes, of nodes."""
        counted = self.layout.world_size if self.cluster.on_gpu else self.cluster.num_nodes
        return self.days * 24 * counted

    @property
    def kilowatt_hours(self) -> float:
        """Energy of the devices under load, nothing else."""
        joules = self.device_hours * 3600 * self.cluster.device.power_watts
        return joules / JOULES_PER_KILOWATT_HOUR

    @property
    def checkpoint_bytes(self) -> int:
        """Of one checkpoint."""
        return checkpoint_bytes(self.config)

    @property
    def checkpoint_seconds(self) -> float:
        """Seconds in which all nodes together write one."""
        return self.checkpoint_bytes / (self.cluster.num_nodes * self.cluster.device.storage_bandwidth)

    @property
    def offloaded_bytes(self) -> int:
        """Bytes of a node's main memory in which offloaded states lie."""
        return self.cluster.ranks_per_node * max(stage.host for stage in self.memory)

    @property
    def buffer_bytes(self) -> int:
        """Bytes of a node's main memory that buffers of checkpoints take; 0 where training waits for a save."""
        return buffer_bytes(self.config, self.cluster)

    def problems(self) -> list[str]:
        """Return why a node cannot hold what is offloaded to its main memory."""
        room, needed = self.cluster.device.host_memory_bytes, self.offloaded_bytes
        if needed <= room:
            return []
        return [
            f"memory.offload_optimizer: a node needs {needed / 2**30:,.0f} GiB of main memory, "
            f"{self.cluster.device.name} has {room / 2**30:,.0f}; use more nodes, or no offload"
        ]

    def tree(self) -> dict[str, Any]:
        """Return everything as plain data; units are in the names."""
        model = self.config.model
        return {
            "device": self.cluster.device.name,
            "nodes": self.cluster.num_nodes,
            "ranks": self.layout.world_size,
            "layout": str(self.layout),
            "precision": self.workload.precision,
            "zero_stage": self.workload.zero_stage,
            "parameters": num_parameters(model),
            "active_parameters": num_active_parameters(model),
            "memory_bytes": [stage.tree() for stage in self.memory],
            "memory_capacity_bytes": self.capacity,
            "memory_error_fraction": MEMORY_BAND,
            "verdict": self.verdict,
            "host_offloaded_bytes": self.offloaded_bytes,
            "host_buffer_bytes": self.buffer_bytes,
            "step_seconds": self.time.tree() | {"total": self.time.total},
            "time_error_fraction": TIME_BAND,
            "tokens_per_step": self.workload.step_tokens,
            "tokens_per_second": self.tokens_per_second,
            "model_tflops": self.model_flops / 1e12,
            "mfu": self.mfu,
            "hfu": self.hfu,
            "train_tokens": self.train_tokens,
            "days": self.days,
            "device_hours": self.device_hours,
            "kilowatt_hours": self.kilowatt_hours,
            "checkpoint_bytes": self.checkpoint_bytes,
            "checkpoint_seconds": self.checkpoint_seconds,
        }


def buffer_bytes(config: RunConfig, cluster: Cluster) -> int:
    """Return bytes of a node's buffers of checkpoints; 0 where there are none, or too few, and training waits."""
    if not config.checkpoints.asynchronous:
        return 0
    needed = -(-checkpoint_bytes(config) // cluster.num_nodes)
    given = config.checkpoints.host_buffer_bytes
    room = cluster.device.host_memory_bytes // 2 if given is None else given * cluster.ranks_per_node
    return needed if needed <= room else 0


def hardware_factor(workload: Workload) -> float:
    """Return FLOPs that are done over those that the model needs: of three passes, some of the first are done again."""
    again = workload.recomputation
    share = attention_share(workload.model)
    return 1.0 + (again.matrices * (1 - share) + again.attention * share) / 3.0


def attention_share(model: ModelConfig) -> float:
    """Return which part of the model's FLOPs attention's two products are."""
    tiny = 1  # with one token a sequence nothing is attended to
    return 1.0 - flops_per_token(model, tiny) / flops_per_token(model)


def project(config: RunConfig, cluster: Cluster) -> Projection:
    """Return the plan of ``config`` on ``cluster``.

    Raises:
        ConfigError: with every reason why it cannot run there.
    """
    problems = cluster.problems(config)
    if problems:
        raise ConfigError(problems)
    plan = project_legal(config, cluster)
    problems = plan.problems()
    if problems:
        raise ConfigError(problems)
    return plan


def project_legal(config: RunConfig, cluster: Cluster) -> Projection:
    """Return the plan of a config that has no problems there."""
    layout = Layout.of(config.parallel, cluster.world_size)
    workload = workload_of(config, layout, cluster.precision(config), on_gpu=cluster.on_gpu)
    memory = tuple(
        rank_memory(config, layout, cluster.device, cluster.constants, value_bytes=workload.value_bytes, stage=stage)
        for stage in range(layout.pipeline_parallel_size)
    )
    return Projection(config, cluster, layout, workload, memory, timed(config, workload, cluster))


def timed(config: RunConfig, workload: Workload, cluster: Cluster) -> StepTime:
    """Return seconds of a step, its share of a checkpoint included."""
    seconds = step_time(workload, cluster.rank_device, cluster.network, cluster.constants)
    if config.memory.offload_optimizer != "none":  # gradients go down, weights come back
        moved = 2 * workload.value_bytes * rank_parameters(workload) / workload.layout.num_copies
        seconds = replace(seconds, optimizer=seconds.optimizer + moved / cluster.device.host_link_bandwidth)
    saved = checkpoint_bytes(config)
    if buffer_bytes(config, cluster):
        stall = saved / workload.layout.world_size / cluster.device.host_link_bandwidth
    else:
        stall = saved / (cluster.num_nodes * cluster.device.storage_bandwidth)
    return replace(seconds, checkpoint=stall / config.intervals.save_steps)
