"""Bytes that one rank needs for a training step at most, by component; from the config alone, no torch.

What is counted is what this trainer's engine really holds: DeepSpeed's ZeRO optimizers keep flat copies and buffers
beyond the well-known 16 bytes a parameter, some of them for a moment only. The peak is that of three moments: the loss
of the last micro batch, the end of its backward pass, and the update.

Source: Rajbhandari et al. 2020 (ZeRO), arXiv 1910.02054, section 3, for the states; the rest is how DeepSpeed 0.19
works.
"""

from dataclasses import dataclass, replace
from typing import Any

from gptdist.config.activations import FP32_BYTES, RankShare
from gptdist.config.recomputation import StageActivations, recomputed
from gptdist.config.run import RunConfig
from gptdist.config.vocabulary import padded_vocab_size
from gptdist.mesh.layout import Layout
from gptdist.model.host_memory import SWAPPED_VALUES, HostMemory
from gptdist.model.optimizer_memory import ZeroParts, moment_bytes, muon_update_bytes
from gptdist.model.rank_weights import RankWeights

LOGITS = 2**24
"""Logits that the loss holds at a time; the model's layer tests that it is its own number."""

REDUCE_BUCKET, PREFETCH, LIVE, PERSISTENT = 500_000_000, 50_000_000, 1_000_000_000, 100_000
"""Values of DeepSpeed's defaults: reduce_bucket_size (no more than a rank's weights in this trainer),
stage3_prefetch_bucket_size, stage3_max_live_parameters, and stage3_param_persistence_threshold, below which a weight is
never given back."""

ALLREDUCE = 500_000_000
"""Gradients that DeepSpeed flattens into one copy for an all-reduce, where ZeRO does not reduce them."""

DOUBLE_BYTES = 8


@dataclass(frozen=True)
class Moment:
    """Bytes at one moment of a step."""

    weights: int
    optimizer: int
    """Master weights and moments."""

    gradients: int
    activations: int
    buffers: int
    """Logits, flat copies for communication, and the like."""

    @property
    def total(self) -> int:
        """All together."""
        return self.weights + self.optimizer + self.gradients + self.activations + self.buffers


@dataclass(frozen=True)
class StepMemory:
    """Bytes that a rank needs in the course of a step."""

    states: int
    """What stays between two steps."""

    loss: Moment
    """While the last micro batch's loss is computed, or its backward pass begins."""

    backward: Moment
    """At the end of its backward pass, while gradients are reduced."""

    update: Moment

    host: int
    """What an offload keeps in the machine's memory all the time, which is no part of the others."""

    @property
    def peak(self) -> Moment:
        """The moment that needs most."""
        return max((self.loss, self.backward, self.update), key=lambda moment: moment.total)


def step_memory(
    config: RunConfig,
    layout: Layout,
    *,
    on_gpu: bool,
    value_bytes: int,
    stage: int = 0,
    whole_buffers: bool | None = None,
    expert_imbalance: float = 1.0,
) -> StepMemory:
    """Return what a rank of pipeline ``stage`` needs for a step; the config has no problems.

    Args:
        config: of the run.
        layout: of its ranks.
        on_gpu: whether tensors lie on a GPU.
        value_bytes: of a weight and an activation: 4 in fp32, else 2.
        stage: of the pipeline.
        whole_buffers: whether a buffer takes its room whole. Default: on a GPU; on a CPU, as much as was written.

        expert_imbalance: tokens that this rank's experts get, in times of what they get if all are chosen evenly.
    """
    share = replace(config.rank_share(on_gpu=on_gpu, value_bytes=value_bytes), expert_imbalance=expert_imbalance)
    rank = _Rank(config, layout, share, stage=stage, whole_buffers=on_gpu if whole_buffers is None else whole_buffers)
    return StepMemory(
        states=rank.states(), loss=rank.loss(), backward=rank.backward(), update=rank.update(), host=rank.host()
    )


class _Rank:
    """One rank of a run."""

    def __init__(self, config: RunConfig, layout: Layout, share: RankShare, *, stage: int, whole_buffers: bool) -> None:
        model, zero = config.model, config.deepspeed.get("zero_optimization", {})
        self.zero_stage, self.copies, self.e = config.parallel.zero_stage, layout.num_copies, share.value_bytes
        self.share, self._whole_buffers = share, whole_buffers
        self.held = RankWeights.of(model, layout, stage)
        self.sizes = self.held.sizes
        self.values = self.held.num_values
        self.largest = max(self.sizes)
        self.parts = ZeroParts.of(layout, self.zero_stage)
        self.part = self.parts.part(self.values, self.held.num_expert_values)
        self.is_last = stage == layout.pipeline_parallel_size - 1
        self.rows = padded_vocab_size(model.vocab_size, share.tensor_parallel_size) // share.tensor_parallel_size
        self.head_values = self.rows * model.hidden_size if self.is_last else 0
        is_tied_copy = model.tie_embeddings and self.is_last and stage > 0
        self.tied_copy = self.head_values if is_tied_copy else 0
        self.accumulates = _num_micro_batches(config, layout) > 1
        self._optimizer = config.optimizer
        self.activations = StageActivations.of(model, config.parallel, share, stage)
        self.again = recomputed(config.memory, model, config.parallel, share, stage)
        self._zero: dict[str, Any] = zero
        self._memory = config.memory
        self.offloads = config.memory.offload_optimizer != "none"
        # DeepSpeed's own optimizer for bf16, which ZeRO-1 has unless it offloads.
        self.is_bf16 = self.e == 2 and not share.is_fp16 and not self.offloads

    def _setting(self, name: str, default: int) -> int:
        return int(self._zero.get(name, default))

    @property
    def bucket(self) -> int:
        """Values that gradients are gathered into for a reduction."""
        return self._setting("reduce_bucket_size", min(REDUCE_BUCKET, self.values))

    @property
    def filled(self) -> int:
        """Values of the bucket that are ever written."""
        return min(self.bucket, self.values)

    @property
    def _flattened(self) -> int:
        """Values of the bucket's copy for a reduction, which one rank alone does without: it has nothing to join."""
        return self.filled if self.copies > 1 else 0

    def _room(self, values: int, written: int) -> int:
        """Return values of a buffer that take room."""
        return values if self._whole_buffers else written

    def weights(self) -> int:
        """Bytes of weights that stay: under ZeRO-3 a part, and small ones whole."""
        held = self.e * self.values
        if self.zero_stage == 3:
            offloads = self._memory.offload_parameters != "none"
            parts = 0 if offloads else sum(-(-size // self.copies) for size in self.sizes)
            held = self.e * (parts + self._persistent())
        return held + self.e * self.tied_copy

    def _persistent(self) -> int:
        """Values that are never given back; where there is one copy, nothing is ever gathered either."""
        if self.copies == 1:
            return 0
        threshold = self._setting("stage3_param_persistence_threshold", PERSISTENT)
        return sum(size for size in self.sizes if size < threshold)

    def gathered(self) -> int:
        """Bytes of weights that ZeRO-3 has whole: after a forward pass they stay, for the backward pass is near."""
        if self.zero_stage < 3 or self.copies == 1:
            return 0
        live = self._setting("stage3_max_live_parameters", LIVE)
        if self._memory.offload_parameters == "nvme":  # what is in use alone
            live = min(live, self.largest)
        return self.e * min(self.values - self._persistent(), live)

    def _fetched(self) -> int:
        """Bytes of what ZeRO-3 fetches together: one buffer, copied out of when the first of it is needed."""
        if self.copies == 1:
            return 0
        return self.e * min(self.values - self._persistent(), self._setting("stage3_prefetch_bucket_size", PREFETCH))

    def _still_gathered(self) -> int:
        """Bytes of weights that are whole at a reduction: those of the first layers come last in a backward pass."""
        return min(self.gathered(), self.e * max(self.values - self.bucket, self.sizes[0]))

    def optimizer(self) -> int:
        """Bytes of master weights, which ZeRO keeps even in fp32, and of moments."""
        if self.offloads:
            return 0
        masters = FP32_BYTES * self.part if self.zero_stage else 0
        return masters + moment_bytes(self.held, self._optimizer, self.parts)

    def host(self) -> int:
        """Bytes that an offload keeps in the machine's memory."""
        swapped = self._setting("sub_group_size", SWAPPED_VALUES)
        return HostMemory(
            self._memory,
            self._optimizer,
            self.held,
            self.parts,
            zero_stage=self.zero_stage,
            value_bytes=self.e,
            accumulates=self.accumulates,
            swapped_values=swapped,
        ).states()

    def _passage(self) -> int:
        """Bytes of the buffer through which gradients go to the machine's memory."""
        return self.e * self.largest if self.offloads and self.zero_stage < 3 else 0

    def states(self) -> int:
        """Bytes that stay between two steps."""
        held = self.weights() + self.optimizer() + self._standing_gradients() + self._passage()
        return held + (self.e * self._room(self.bucket, self.filled) if self.zero_stage == 3 else 0)

    def _standing_gradients(self) -> int:
        """Bytes of gradients that are never given back: whole in ZeRO-1 for bf16, a part in ZeRO-3."""
        if self.zero_stage == 1 and self.is_bf16:
            return FP32_BYTES * self.values
        if self.zero_stage < 3 or self.offloads:
            return 0
        return FP32_BYTES * sum(-(-size // self.copies) for size in self.sizes)

    def accumulated(self) -> int:
        """Bytes of gradients of the micro batches before the last."""
        standing = self._standing_gradients()
        if not self.accumulates:
            return standing
        if self.zero_stage == 3:
            return standing
        if self.zero_stage == 2:
            return 0 if self.offloads and self.e == FP32_BYTES else FP32_BYTES * self.part
        if self.is_bf16:
            return standing + self.e * self.values  # those of autograd are cleared at the next backward pass only
        return FP32_BYTES * self.values

    def loss(self) -> Moment:
        """At the last micro batch's loss or right behind it; under ZeRO-3, while weights come in."""
        activations = self.activations.peak(self.again)
        buffers = self._logits() if self.is_last else 0
        if self.zero_stage == 3:
            buffers = max(buffers, self._fetched() - (self.activations.behind if self.is_last else 0))
            buffers += self.e * self._room(self.bucket, self.filled if self.accumulates else 0)
        elif self.zero_stage == 1 and not self.is_bf16 and self.accumulates:
            buffers += FP32_BYTES * self._room(self.bucket, 0)
        elif self.zero_stage == 2 or (self.zero_stage == 1 and not self.is_bf16):  # made when the backward pass begins
            size = FP32_BYTES if self.zero_stage == 1 else self.e
            buffers = max(buffers, size * self._room(self.bucket, 0))
        return self._moment(self.accumulated(), activations=activations, buffers=buffers, gathered=self.gathered())

    def _logits(self) -> int:
        """Bytes of a chunk's logits, and of gradients of the output matrix beyond what is kept."""
        logits = self.rows * min(self.share.tokens, max(1, LOGITS // self.rows))
        if self.e == FP32_BYTES:
            return FP32_BYTES * logits
        # As they come, in fp32, and their gradient rounded. Beside the gradient in fp32 the summand of a chunk, which
        # a CPU widens to add it.
        kept = FP32_BYTES if self.share.is_fp16 else self.e
        widened = 0 if self.share.on_gpu else FP32_BYTES
        return (self.e + FP32_BYTES + self.e) * logits + (FP32_BYTES - kept + self.e + widened) * self.head_values

    def backward(self) -> Moment:
        """At the end of the backward pass, or where gradients are reduced in its course."""
        activations, gradients = 0, self._standing_gradients()
        match self.zero_stage:
            case 0:  # a flat copy of all for the all-reduce
                gradients, buffers = FP32_BYTES * self.values, FP32_BYTES * min(self.values, ALLREDUCE)
            case 1 if self.is_bf16:  # those of autograd; a flat copy in fp32, and one as it is sent
                gradients += self.e * self.values
                buffers = (FP32_BYTES + self.e) * min(self.values, ALLREDUCE)
            case 1:  # moved into the bucket, which is flattened once more; this rank's part is copied out of it
                gradients = FP32_BYTES * (self.values - self.filled + (0 if self.offloads else self.part))
                buffers = FP32_BYTES * (self._room(self.bucket, self.filled) + self._flattened)
            case 2:
                is_there = self.e == 2 or (self.accumulates and not self.offloads)
                gradients = FP32_BYTES * self.part if is_there else 0
                # This rank's part of this micro batch is copied out when the flat copy is gone.
                copied = self._flattened if self.e == 2 or self.offloads else max(self._flattened, self.part)
                buffers = self.e * (self._room(self.bucket, self.filled) + copied)
                buffers += FP32_BYTES * min(self.largest, self.part) if self.e == 2 else 0  # widened one by one
            case _:
                cloned = 0 if self.share.on_gpu else self.filled  # by gloo
                buffers = self.e * (self._room(self.bucket, self.filled) + self.filled + cloned)
        return self._moment(gradients, activations=activations, buffers=buffers, gathered=self._still_gathered())

    def update(self) -> Moment:
        """At the update; a norm is computed of a gradient in double precision."""
        gradients, buffers = self._standing_gradients(), 0
        if self.zero_stage == 0:
            gradients = FP32_BYTES * self.values
        elif self.zero_stage <= 2 and not (self.zero_stage == 1 and self.is_bf16) and not self.offloads:
            gradients = FP32_BYTES * self.part
            flat = 0 if self.e == 2 else FP32_BYTES * self.part
            buffers = max(DOUBLE_BYTES * min(self.largest, self.part), flat)
        elif self.zero_stage == 3:
            flat = 0 if self.offloads else FP32_BYTES * self.part
            buffers = flat + self.e * self._room(self.bucket, self.filled)
        if self._optimizer.kind == "muon":
            buffers += muon_update_bytes(self.held, self.parts, on_gpu=self.share.on_gpu)
        return self._moment(gradients, activations=0, buffers=buffers, gathered=0)

    def _moment(self, gradients: int, *, activations: int, buffers: int, gathered: int) -> Moment:
        return Moment(
            weights=self.weights() + gathered,
            optimizer=self.optimizer(),
            gradients=gradients + FP32_BYTES * self.tied_copy,
            activations=activations,
            buffers=buffers + self._passage(),
        )


def _num_micro_batches(config: RunConfig, layout: Layout) -> int:
    batch = config.batch
    return batch.global_batch_size // (batch.micro_batch_size * layout.data_parallel_size)
