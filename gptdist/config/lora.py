"""Low-rank adapters that are trained in place of a model's own weights."""

from typing import Literal

from gptdist.config.memory import MemoryConfig
from gptdist.config.model import ModelConfig
from gptdist.config.optimization import OptimizerConfig
from gptdist.config.parallel import ParallelConfig
from gptdist.config.section import Section

Target = Literal["qkv", "proj", "fc1", "fc2"]


class LoraConfig(Section):
    """To each chosen matrix W a product of two narrow ones is added: W + alpha / rank x B A; W itself stays as it is.

    Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685, section 4.1.
    """

    rank: int = 8
    """Columns of B and rows of A."""

    alpha: float = 16.0
    """Alpha / rank is what the product is multiplied by."""

    targets: tuple[Target, ...] = ("qkv", "proj", "fc1", "fc2")
    """Which matrices of each layer: queries, keys and values; attention's output; feed-forward's first and second."""

    @property
    def scale(self) -> float:
        """What the product is multiplied by."""
        return self.alpha / self.rank

    def problems(
        self,
        model: ModelConfig,
        optimizer: OptimizerConfig,
        *,
        memory: MemoryConfig,
        parallel: ParallelConfig,
        precision: str,
    ) -> list[str]:
        """Return every value out of its range, and what adapters are not trained with."""
        bad = [] if self.rank >= 1 else [f"lora.rank: must be at least 1, got {self.rank}"]
        if self.alpha <= 0.0:
            bad.append(f"lora.alpha: must be above 0, got {self.alpha}")
        if not self.targets or len(set(self.targets)) < len(self.targets):
            bad.append(f"lora.targets: each of them once, and at least one, got {list(self.targets)}")
        if optimizer.kind not in ("adamw", "lion"):
            bad.append(f"optimizer.kind: {optimizer.kind} is not tested with lora; use adamw or lion")
        if model.moe is not None:
            bad.append("lora: experts have no adapters; leave lora out, or take a dense model")
        if model.init == "mup":
            bad.append(
                "lora: mup has learning rates for whole matrices, not for adapters; leave lora out, or export the "
                "model and import it again, which leaves mup behind"
            )
        if memory.offload():
            bad.append(f"memory.offload_optimizer: not tested with lora, got {memory.offload()}; set it to none")
        if parallel.pipeline_parallel_size > 1:
            bad.append(
                f"parallel.pipeline_parallel_size: not tested with lora, got {parallel.pipeline_parallel_size}; use "
                f"tensor_parallel_size or a higher zero_stage"
            )
        if precision == "fp16":
            bad.append("training.precision: fp16 is not tested with lora; use bf16 or fp32")
        return bad
