"""The fastest legal layouts of a run that fit: every one that the config allows is timed, the fastest are weighed."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from gptdist.config.run import RunConfig
from gptdist.errors import ConfigError
from gptdist.mesh.layout import Layout
from gptdist.plan.projection import Cluster, Projection, project_legal, timed
from gptdist.plan.rank_memory import rank_memory
from gptdist.plan.workload import workload_of

MICRO_BATCH_SIZES = (1, 2, 4, 8, 16, 32)
RECOMPUTE = ("none", "mlp", "full")
MOST_STAGES, MOST_CONTEXT = 64, 16
ZERO_STAGES = (1, 2, 3)
"""Of ranks that hold the same weights; ZeRO 0 is slower than ZeRO 1 and needs more."""


@dataclass(frozen=True)
class Candidate:
    """One way to split the run, and seconds of a step."""

    config: RunConfig
    seconds: float

    @property
    def split(self) -> tuple[int, int, int, int]:
        """The axes, of which the table shows the fastest variant each."""
        parallel = self.config.parallel
        return (
            parallel.tensor_parallel_size,
            parallel.pipeline_parallel_size,
            parallel.context_parallel_size,
            parallel.expert_parallel_size,
        )


@dataclass(frozen=True)
class Found:
    """What a search came to."""

    best: tuple[Projection, ...]
    """The fastest that fit, one for each way to split the ranks."""

    num_legal: int
    """Layouts that were timed."""

    leanest: Projection | None
    """Where nothing fits: the one that needs least memory of those that were weighed."""


def search(config: RunConfig, cluster: Cluster, *, count: int) -> Found:
    """Return the fastest layouts of ``config`` that fit on ``cluster``.

    Raises:
        ConfigError: no layout is legal, with the reasons why that of the config is not.
    """
    candidates = sorted(_legal(config, cluster), key=lambda candidate: candidate.seconds)
    if not candidates:
        own = cluster.problems(config)
        raise ConfigError(own or ["--search: no layout is legal with these ranks; use another number of nodes"])
    best: list[Projection] = []
    taken: set[tuple[int, int, int, int]] = set()
    leanest: tuple[int, RunConfig] | None = None
    for candidate in candidates:
        if candidate.split in taken:
            continue
        needed = most_bytes(candidate.config, cluster)
        if leanest is None or needed < leanest[0]:
            leanest = needed, candidate.config
        if needed > cluster.rank_device.memory_bytes:
            continue
        taken.add(candidate.split)
        best.append(project_legal(candidate.config, cluster))
        if len(best) == count:
            break
    assert leanest is not None, "no candidate was weighed"
    return Found(tuple(best), len(candidates), None if best else project_legal(leanest[1], cluster))


def override_line(config: RunConfig, asked: RunConfig) -> str:
    """Return what to put behind a command to have ``config`` in place of ``asked``."""
    values: dict[str, Any] = {
        f"parallel.{name}": value
        for name, value in config.parallel.tree().items()
        if value != getattr(asked.parallel, name)
    }
    if config.batch.micro_batch_size != asked.batch.micro_batch_size:
        values["batch.micro_batch_size"] = config.batch.micro_batch_size
    if config.memory.recompute != asked.memory.recompute:
        values["memory.recompute"] = config.memory.recompute
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}
    return " ".join(f"{name}={text}" for name, text in texts.items()) or "(the config as it is)"


def most_bytes(config: RunConfig, cluster: Cluster) -> int:
    """Return bytes of the stage that needs most: the first keeps most micro batches, the last has the logits."""
    layout = Layout.of(config.parallel, cluster.world_size)
    value_bytes = 4 if cluster.precision(config) == "fp32" else 2
    return max(
        rank_memory(config, layout, cluster.device, cluster.constants, value_bytes=value_bytes, stage=stage).total
        for stage in {0, layout.pipeline_parallel_size - 1}
    )


def _legal(config: RunConfig, cluster: Cluster) -> Iterator[Candidate]:
    """Yield every legal way to run ``config``, timed."""
    for parallel in _splits(config, cluster):
        split = config.model_copy(update={"parallel": config.parallel.model_copy(update=parallel)})
        if split.parallel.problems(cluster.world_size, config.model):
            continue
        replicas = split.parallel.data_parallel_size(cluster.world_size)
        for size, recompute in product(MICRO_BATCH_SIZES, RECOMPUTE):
            if config.batch.global_batch_size % (size * replicas):
                continue
            update = {
                "batch": config.batch.model_copy(update={"micro_batch_size": size}),
                "memory": config.memory.model_copy(
                    update={"recompute": recompute, "activation_bytes": None, "recompute_layers": None}
                ),
            }
            candidate = split.model_copy(update=update)
            if size == MICRO_BATCH_SIZES[0] and recompute == RECOMPUTE[0] and candidate.problems(cluster.world_size):
                break  # of the split itself
            if not candidate.batch.problems(replicas):
                yield Candidate(candidate, _seconds(candidate, cluster))


def _seconds(config: RunConfig, cluster: Cluster) -> float:
    layout = Layout.of(config.parallel, cluster.world_size)
    workload = workload_of(config, layout, cluster.precision(config), on_gpu=cluster.on_gpu)
    return timed(config, workload, cluster).total


def _splits(config: RunConfig, cluster: Cluster) -> Iterator[dict[str, Any]]:
    """Yield sizes of the axes; those that do not divide are refused later."""
    model, world = config.model, cluster.world_size
    tensors = _powers(min(cluster.device.devices_per_node, cluster.ranks_per_node, model.num_attention_heads))
    stages = [size for size in range(1, MOST_STAGES + 1) if model.num_layers % size == 0 and world % size == 0]
    contexts = _powers(min(MOST_CONTEXT, max(1, model.seq_length // 4096)))
    experts = _powers(1 if model.moe is None else model.moe.num_experts)
    for tensor, pipeline, context, expert in product(tensors, stages, contexts, experts):
        if world % (tensor * pipeline * context):
            continue
        copies = world // (tensor * pipeline)
        for zero in ZERO_STAGES if copies > 1 else (1,):
            yield {
                "tensor_parallel_size": tensor,
                "sequence_parallel": tensor > 1,
                "context_parallel_size": context,
                "pipeline_parallel_size": pipeline,
                "expert_parallel_size": expert,
                "zero_stage": zero,
            }


def _powers(limit: int) -> list[int]:
    return [1 << exponent for exponent in range(limit.bit_length())]
