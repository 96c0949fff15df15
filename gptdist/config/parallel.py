"""How ranks are split over the parallel axes."""

import math

from gptdist.config.layouts import ZERO_STAGES, LayoutKind
from gptdist.config.model import ModelConfig
from gptdist.config.section import Section


class ParallelConfig(Section):
    """How ranks are split; data parallelism takes what the other axes leave."""

    tensor_parallel_size: int = 1
    """Ranks that share each weight matrix. Keep it within one node."""

    sequence_parallel: bool = False
    """Split also what lies between the matrices (norms, residuals, dropout) over the tensor-parallel ranks, by tokens:
    their memory shrinks, and only gradients of norms and biases are communicated more."""

    pipeline_parallel_size: int = 1
    """Stages that each hold as many consecutive layers, and pass hidden states on: the least communication of all
    axes. A step of m micro batches leaves each rank idle for (stages - 1) / (m + stages - 1) of it. ZeRO 0 to 2."""

    context_parallel_size: int = 1
    """Ranks that share the tokens of each sample, where the activations of a long one do not fit a single rank. Every
    layer gathers keys and values."""

    expert_parallel_size: int = 1
    """Ranks with the same weights otherwise, among which the experts of model.moe are split: each token travels to the
    ranks of its experts and back. Data parallelism stays what it is."""

    zero_stage: int = 1
    """What DeepSpeed ZeRO splits over the data-parallel ranks: 0 nothing, 1 optimizer, 2 also gradients, 3 also
    weights."""

    def data_parallel_size(self, world_size: int) -> int:
        """Return how many replicas of the model ``world_size`` ranks hold."""
        return world_size // (self.tensor_parallel_size * self.pipeline_parallel_size * self.context_parallel_size)

    def kind(self, world_size: int, model: ModelConfig) -> LayoutKind:
        """Return what ``world_size`` ranks split of ``model``."""
        return LayoutKind(
            zero_stage=self.zero_stage,
            data_parallel=self.data_parallel_size(world_size) > 1,
            tensor_parallel=self.tensor_parallel_size > 1,
            sequence_parallel=self.sequence_parallel,
            context_parallel=self.context_parallel_size > 1,
            pipeline_parallel=self.pipeline_parallel_size > 1,
            has_experts=model.moe is not None,
            expert_parallel=self.expert_parallel_size > 1,
        )

    def divides(self, world_size: int) -> bool:
        """Return whether ``world_size`` ranks make whole replicas."""
        sizes = (self.tensor_parallel_size, self.pipeline_parallel_size, self.context_parallel_size)
        return min(sizes) >= 1 and world_size % math.prod(sizes) == 0

    def problems(self, world_size: int, model: ModelConfig) -> list[str]:
        """Return every reason why ``model`` cannot run on ``world_size`` ranks this way."""
        tensor, context = self.tensor_parallel_size, self.context_parallel_size
        bad = [
            f"parallel.{axis}: must be at least 1, got {getattr(self, axis)}"
            for axis in ("tensor_parallel_size", "context_parallel_size", "pipeline_parallel_size")
            if getattr(self, axis) < 1
        ]
        if bad:
            return bad
        bad = self._pipeline_problems(model)
        if self.zero_stage not in ZERO_STAGES:
            bad.append(f"parallel.zero_stage: must be 0, 1, 2 or 3, got {self.zero_stage}")
        if world_size % tensor:
            bad.append(
                f"parallel.tensor_parallel_size ({tensor}) does not divide the number of ranks ({world_size}); "
                f"launch a multiple of {tensor} ranks, or shrink it"
            )
        elif world_size % (tensor * context):
            bad.append(
                f"parallel.context_parallel_size ({context}) x tensor_parallel_size ({tensor}) does not divide the "
                f"number of ranks ({world_size}); launch a multiple of {tensor * context} ranks, or shrink one"
            )
        elif world_size % (tensor * context * self.pipeline_parallel_size):
            bad.append(
                f"parallel.pipeline_parallel_size ({self.pipeline_parallel_size}) x the ranks of a stage "
                f"({tensor * context}) does not divide the number of ranks ({world_size}); launch a multiple of "
                f"{tensor * context * self.pipeline_parallel_size} ranks, or use fewer stages"
            )
        bad += self.sequence_problems(model.seq_length)
        bad += self.kind(world_size, model).refusals()
        sizes = model.split_sizes()
        if model.moe is not None:
            sizes["moe.num_experts"] = model.moe.num_experts
        for name, size in sizes.items():
            if size % tensor:
                legal = [d for d in range(1, tensor) if all(s % d == 0 for s in sizes.values())]
                bad.append(
                    f"parallel.tensor_parallel_size ({tensor}) does not divide model.{name} ({size}); "
                    f"use one of {legal}, or change the model"
                )
        return bad + self._expert_problems(world_size, model)

    def _pipeline_problems(self, model: ModelConfig) -> list[str]:
        """Return why the layers of ``model`` cannot be cut into stages."""
        stages = self.pipeline_parallel_size
        if model.num_layers % stages == 0:
            return []
        legal = [size for size in range(1, model.num_layers + 1) if model.num_layers % size == 0]
        return [
            f"parallel.pipeline_parallel_size ({stages}) does not divide model.num_layers ({model.num_layers}); "
            f"use one of {legal}"
        ]

    def stage_problems(self, precision: str, *, generates: bool) -> list[str]:
        """Return what a pipeline cannot do in a number format, or while it trains."""
        stages, bad = self.pipeline_parallel_size, []
        if stages > 1 and precision == "fp16":
            bad.append(
                f"parallel.pipeline_parallel_size ({stages}): stages pass gradients on unscaled, fp16 needs a loss "
                f"scale; use training.precision bf16, or tensor_parallel_size"
            )
        if stages > 1 and generates:
            bad.append(
                f"parallel.pipeline_parallel_size ({stages}): no stage can write texts alone; leave generation out "
                f"and use `gptdist generate` on a checkpoint"
            )
        return bad

    def _expert_problems(self, world_size: int, model: ModelConfig) -> list[str]:
        """Return why experts cannot be split so."""
        size = self.expert_parallel_size
        if size < 1:
            return [f"parallel.expert_parallel_size: must be at least 1, got {size}"]
        if model.moe is None:
            return []
        bad, replicas = [], self.data_parallel_size(world_size)
        if replicas > 1 and replicas % size:
            bad.append(
                f"parallel.expert_parallel_size ({size}) does not divide the data-parallel size ({replicas}); launch "
                f"more ranks, or shrink it"
            )
        if model.moe.num_experts % (self.tensor_parallel_size * size):
            bad.append(
                f"parallel.expert_parallel_size ({size}) x tensor_parallel_size ({self.tensor_parallel_size}) does not "
                f"divide model.moe.num_experts ({model.moe.num_experts}); shrink one"
            )
        return bad

    def sequence_problems(self, seq_length: int, where: str = "model.seq_length") -> list[str]:
        """Return why sequences of ``seq_length`` tokens cannot be cut: in two chunks a context-parallel rank.

        Nothing is returned where sizes are out of their range, which ``problems`` tells.
        """
        tensor, context = self.tensor_parallel_size, self.context_parallel_size
        if min(tensor, context) < 1:
            return []
        if context > 1 and seq_length % (2 * context):
            return [
                f"parallel.context_parallel_size ({context}): {where} ({seq_length}) is no multiple of "
                f"2 x {context}; change one of them"
            ]
        if not self.sequence_parallel or seq_length % (tensor * context) == 0:
            return []
        if context == 1:
            return [
                f"parallel.sequence_parallel: tensor_parallel_size ({tensor}) does not divide {where} "
                f"({seq_length}); change one of them"
            ]
        return [
            f"parallel.sequence_parallel: tensor_parallel_size ({tensor}) x context_parallel_size ({context}) does not "
            f"divide {where} ({seq_length}); change one of them"
        ]
