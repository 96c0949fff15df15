"""One training step as a plan sees it: of a run of this project, or of a published run of other software."""

from dataclasses import dataclass
from typing import Literal

from gptdist.config.activations import RankShare
from gptdist.config.model import ModelConfig
from gptdist.config.recomputation import StageActivations, recomputed
from gptdist.config.run import RunConfig
from gptdist.mesh.layout import Layout

Precision = Literal["fp32", "fp16", "bf16", "fp8"]


@dataclass(frozen=True)
class Software:
    """What the training software does that its config does not say."""

    attention: Literal["unfused", "flash2", "cudnn"] = "cudnn"
    """``unfused`` writes all scores to memory; ``flash2`` is a fused kernel of A100's time; ``cudnn`` of later ones."""

    overlaps_tensor_parallel: bool = False
    """Whether tensor-parallel traffic goes on beside matrix products."""

    overlaps_gradients: bool = True
    """Whether gradients are reduced beside the backward pass."""

    gathers_eagerly: bool = False
    """Whether ZeRO-3 gathers each weight by itself, as DeepSpeed did in 2021."""

    balances_stages: bool = False
    """Whether embedding and output projection count as layers when the pipeline is cut."""

    rowwise_fp8: bool = False
    """Whether each row of an fp8 product has its own scale: such products are no faster than bf16 ones."""


@dataclass(frozen=True)
class Recomputation:
    """What a backward pass computes again, as fractions of a layer's forward pass."""

    matrices: float = 0.0
    attention: float = 0.0
    rest: float = 0.0
    """Elementwise work and collectives."""


@dataclass(frozen=True)
class Workload:
    """One step."""

    model: ModelConfig
    layout: Layout
    micro_batch_size: int
    num_micro_batches: int
    precision: Precision
    zero_stage: int
    sequence_parallel: bool = False
    recomputation: Recomputation = Recomputation()
    virtual_stages: int = 1
    """Pieces of the model that a pipeline stage has in turns (interleaved schedule)."""

    software: Software = Software()

    @property
    def tokens(self) -> int:
        """Tokens of a micro batch on one rank."""
        return self.micro_batch_size * self.model.seq_length // self.layout.context_parallel_size

    @property
    def global_batch_size(self) -> int:
        """Sequences a step."""
        return self.micro_batch_size * self.num_micro_batches * self.layout.data_parallel_size

    @property
    def step_tokens(self) -> int:
        """Tokens a step, of all ranks."""
        return self.global_batch_size * self.model.seq_length

    @property
    def value_bytes(self) -> int:
        """Of a weight and an activation; fp8 is a format of matrix products alone."""
        return 4 if self.precision == "fp32" else 2

    def layers_of_stage(self, stage: int) -> int:
        """Return how many layers a pipeline stage has, at most where they do not divide."""
        stages, layers = self.layout.pipeline_parallel_size, self.model.num_layers
        if not self.software.balances_stages or stages == 1:
            return -(-layers // stages)
        whole = -(-(layers + 2) // stages)
        return whole - 1 if stage in (0, stages - 1) else whole


def workload_of(config: RunConfig, layout: Layout, precision: Precision, *, on_gpu: bool) -> Workload:
    """Return a step of a run of this project; the config has no problems."""
    share = config.rank_share(on_gpu=on_gpu, value_bytes=4 if precision == "fp32" else 2)
    batch = config.batch
    return Workload(
        model=config.model,
        layout=layout,
        micro_batch_size=batch.micro_batch_size,
        num_micro_batches=batch.global_batch_size // (batch.micro_batch_size * layout.data_parallel_size),
        precision=precision,
        zero_stage=config.parallel.zero_stage,
        sequence_parallel=config.parallel.sequence_parallel,
        recomputation=_recomputation(config, share),
        software=Software(attention="cudnn" if on_gpu else "flash2"),
    )


def _recomputation(config: RunConfig, share: RankShare) -> Recomputation:
    """Return what the first stage computes again, which has most of it."""
    memory, model, parallel = config.memory, config.model, config.parallel
    if memory.recompute == "none":
        return Recomputation()
    again = recomputed(memory, model, parallel, share, 0)
    layers = StageActivations.of(model, parallel, share, 0).layers
    matrices = sum(layer.flops - layer.attention_flops for layer in layers)
    attention = sum(layer.attention_flops for layer in layers)
    whole = layers[: again.full_layers]
    matrices_again = sum(layer.flops - layer.attention_flops for layer in whole)
    matrices_again += sum(layers[index].mlp_flops for index in again.mlp)
    attention_again = sum(layer.attention_flops for layer in whole)
    attention_again += sum(layers[index].attention_flops for index in again.attention)
    return Recomputation(
        matrices=matrices_again / matrices if matrices else 0.0,
        attention=attention_again / attention if attention else 0.0,
        rest=(len(whole) + 0.5 * len(again.mlp)) / len(layers),
    )
