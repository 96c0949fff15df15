"""The config of a training run: everything that decides what is trained, and where."""

import re
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from gptdist.config.activations import RankShare
from gptdist.config.batch import BatchConfig, BatchSizes
from gptdist.config.checkpoints import CheckpointsConfig
from gptdist.config.data import DataConfig
from gptdist.config.data_stages import stage_problems
from gptdist.config.distillation import DistillationConfig
from gptdist.config.guards import GuardsConfig
from gptdist.config.launch import LaunchConfig
from gptdist.config.lora import LoraConfig
from gptdist.config.memory import MemoryConfig
from gptdist.config.model import ModelConfig
from gptdist.config.optimization import OptimizerConfig, ScheduleConfig
from gptdist.config.parallel import ParallelConfig
from gptdist.config.precision import LossScaleConfig, Precision, precision_problems
from gptdist.config.recomputation import budget_problems
from gptdist.config.section import Section
from gptdist.config.seq_length import SeqLengths
from gptdist.config.telemetry import TelemetryConfig
from gptdist.config.validation import EarlyStoppingConfig, GenerationConfig, generation_problems

OWNED_BY_US = {
    "train_batch_size": "batch.global_batch_size",
    "train_micro_batch_size_per_gpu": "batch.micro_batch_size",
    "gradient_accumulation_steps": "batch.global_batch_size",
    "gradient_clipping": "optimizer.max_grad_norm",
    "optimizer": "optimizer",
    "scheduler": "schedule",
    "bf16": "training.precision",
    "fp16": "training.precision",
}
"""Keys of DeepSpeed's config that follow from ours, and what to set instead."""

ZERO_KEYS_OWNED_BY_US = {
    "stage": "parallel.zero_stage",
    "offload_optimizer": "memory.offload_optimizer",
    "offload_param": "memory.offload_parameters",
}
"""Likewise of its section ``zero_optimization``."""


class TrainingConfig(Section):
    """How long, with which numbers, on what."""

    train_steps: int
    """Optimizer steps of the whole run."""

    init_from: Path | None = None
    """A checkpoint (run or step folder, such as an imported or averaged one) whose weights the run begins with, at step
    0 and without moments; relative to the working folder. Only a run without checkpoints looks at it."""

    keep_zeros: bool = False
    """Hold weights of linear matrices at zero that are zero when the run begins, as pruning leaves them."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` takes CUDA where there is one."""

    precision: Precision = "auto"
    """Number format of weights and activations; ``auto`` is bf16 on CUDA and fp32 on CPU. The optimizer's copy is
    always fp32."""

    loss_scale: LossScaleConfig = LossScaleConfig()
    """Of precision fp16."""

    deterministic: bool = False
    """Let torch use only algorithms that give the same bits every time, slower ones where need be; it raises an error
    where there is none. A CPU run gives the same bits without it."""

    z_loss: float = 0.0
    """Coefficient of mean(log(sum of exp(logits))^2) in the gradient, against drifting logits; PaLM has 1e-4. The
    losses that are shown are without it."""

    early_stopping: EarlyStoppingConfig | None = None
    """When the run ends before ``train_steps``; unset is never."""

    collective_timeout_seconds: float = 600.0
    """How long a rank waits for the others in a collective before it fails."""

    def problems(self) -> list[str]:
        """Return every value out of its range."""
        bad = [] if self.train_steps >= 1 else [f"training.train_steps: must be at least 1, got {self.train_steps}"]
        if self.z_loss < 0.0:
            bad.append(f"training.z_loss: must be at least 0, got {self.z_loss}")
        if self.collective_timeout_seconds <= 0:
            bad.append(f"training.collective_timeout_seconds: must be above 0, got {self.collective_timeout_seconds}")
        return bad + self.loss_scale.problems(self.precision)

    def early_stopping_problems(self, eval_steps: int) -> list[str]:
        """Return why the run cannot end early as ``early_stopping`` says."""
        return [] if self.early_stopping is None else self.early_stopping.problems(self.train_steps, eval_steps)


class IntervalsConfig(Section):
    """Every how many optimizer steps something happens."""

    log_steps: int = 10
    """A line on the console and in metrics.jsonl."""

    eval_steps: int = 500
    """Validation loss."""

    save_steps: int = 500
    """A checkpoint; one is also saved at the end and on a stop signal."""

    sample_steps: int | None = None
    """Texts that the model writes on ``generation``'s prompts; unset is none."""

    check_steps: int = 100
    """A comparison of checksums of the weights that ranks must hold alike; the run ends where they differ."""

    def problems(self) -> list[str]:
        """Return every interval below 1."""
        return [
            f"intervals.{name}: must be at least 1, got {value}"
            for name, value in self.tree().items()
            if value is not None and value < 1
        ]


class RunConfig(Section):
    """Everything about one training run."""

    name: str
    """Name of the run; its folder is ``runs/<name>`` unless run_dir says otherwise."""

    run_dir: Path | None = None
    """Folder of checkpoints, metrics and logs, relative to the working folder."""

    seed: int = 1234
    """Decides initial weights, data order and dropout."""

    model: ModelConfig
    data: DataConfig
    batch: BatchConfig
    training: TrainingConfig
    parallel: ParallelConfig = ParallelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    memory: MemoryConfig = MemoryConfig()
    guards: GuardsConfig = GuardsConfig()
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    intervals: IntervalsConfig = IntervalsConfig()
    lora: LoraConfig | None = None
    """Adapters to train in place of the model's weights, which ``training.init_from`` names; unset trains these."""

    generation: GenerationConfig | None = None
    distillation: DistillationConfig | None = None
    launch: LaunchConfig = LaunchConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    deepspeed: dict[str, Any] = Field(default_factory=dict)
    """Passed through to DeepSpeed's config, for keys that are not set by ours."""

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return Path("runs") / self.name if self.run_dir is None else self.run_dir

    @cached_property
    def batch_sizes(self) -> BatchSizes:
        """The global batch size, by consumed samples."""
        return BatchSizes.of(self.batch, self.model.seq_length)

    @cached_property
    def seq_lengths(self) -> SeqLengths:
        """Tokens of a sequence, by consumed samples; a sample may be cut into several."""
        return SeqLengths.of(self.batch.seq_length_ramp, self.model.seq_length)

    @property
    def train_tokens(self) -> int:
        """Tokens of the whole run, from its beginning with this config."""
        return self.batch_sizes.after(0, self.training.train_steps) * self.model.seq_length

    def tokens_by_seq_length(self) -> list[tuple[int, int]]:
        """Return the lengths of sequences, each with the tokens that the whole run takes of it."""
        parts, begin, sizes, steps = [], 0, self.batch_sizes, self.training.train_steps
        ends = [min(steps, sizes.steps_within(0, bound - 1) + 1) for bound in self.seq_lengths.bounds]
        for length, end in zip(self.seq_lengths.lengths, [*ends, steps], strict=True):
            parts.append((length, (sizes.after(0, end) - sizes.after(0, begin)) * self.model.seq_length))
            begin = end
        return parts

    @property
    def checkpoints_folder(self) -> Path:
        """Folder that holds one folder a checkpoint."""
        return self.folder / "checkpoints"

    def rank_share(self, *, on_gpu: bool | None = None, value_bytes: int | None = None) -> RankShare:
        """Return what a rank computes of a micro batch.

        Args:
            on_gpu: default: whether it could be so, by ``training.device``.
            value_bytes: of an activation; default: those of ``training.precision`` there.
        """
        on_gpu = self.training.device != "cpu" if on_gpu is None else on_gpu
        is_fp32 = self.training.precision == "fp32" or (self.training.precision == "auto" and not on_gpu)
        return RankShare(
            micro_batch_size=self.batch.micro_batch_size,
            seq_length=self.model.seq_length,
            tensor_parallel_size=self.parallel.tensor_parallel_size,
            context_parallel_size=self.parallel.context_parallel_size,
            sequence_parallel=self.parallel.sequence_parallel,
            value_bytes=(4 if is_fp32 else 2) if value_bytes is None else value_bytes,
            is_fp16=self.training.precision == "fp16",
            on_gpu=on_gpu,
            separate_documents=self.data.separate_documents,
            is_visited=self.parallel.expert_parallel_size > 1,
        )

    def _split_expert_problems(self) -> list[str]:
        """Return what is not done with experts that are split over ranks with the same weights otherwise."""
        if self.parallel.expert_parallel_size <= 1:
            return []
        bad = []
        if self.optimizer.kind == "muon":
            bad.append("optimizer.kind: muon does not put together experts that are split; use adamw or lion")
        if self.training.precision == "fp16":
            bad.append("training.precision: fp16 is not tested with parallel.expert_parallel_size; use bf16 or fp32")
        if self.memory.offload_optimizer != "none" or self.memory.offload_parameters != "none":
            bad.append(
                f"memory.offload_optimizer: not tested with parallel.expert_parallel_size "
                f"({self.parallel.expert_parallel_size}); use none, or expert_parallel_size 1"
            )
        return bad

    def _muon_problems(self) -> list[str]:
        """Return what does not go with updates that are orthogonal matrices."""
        if self.optimizer.kind != "muon":
            return []
        bad = []
        if self.model.init == "mup":
            bad.append(
                "optimizer.kind: mup's learning rates are for adamw and lion, not muon; use model.init gpt2 or small"
            )
        if self.training.keep_zeros:
            bad.append(
                "training.keep_zeros: muon's updates move every weight of a matrix; use optimizer.kind adamw, lion or "
                "adafactor"
            )
        return bad

    def _lora_problems(self) -> list[str]:
        """Return what adapters are not trained with."""
        if self.lora is None:
            return []
        bad = self.lora.problems(
            self.model,
            self.optimizer,
            memory=self.memory,
            parallel=self.parallel,
            precision=self.training.precision,
        )
        if self.training.keep_zeros:
            bad.append(
                "training.keep_zeros: adapters add to every weight of a matrix, so that no zero stays; leave lora out"
            )
        return bad

    def _distillation_problems(self) -> list[str]:
        if self.distillation is None:
            return []
        return self.distillation.problems(
            train_steps=self.training.train_steps,
            num_layers=self.model.num_layers,
            parallel=self.parallel,
            memory=self.memory,
            has_ramp=bool(self.batch.seq_length_ramp),
        )

    def problems(self, world_size: int | None = None) -> list[str]:
        """Return every reason why the run cannot be trained; looks at no disk and no GPU.

        Args:
            world_size: ranks in all; default: those of one machine.
        """
        ranks = self.launch.ranks_per_node if world_size is None else world_size
        is_plain = re.fullmatch(r"\w[\w.-]*", self.name) is not None  # it becomes a folder's name
        bad = [] if is_plain else [f"name: must be letters, digits, '_', '-' and '.', got '{self.name}'; rename it"]
        if not 0 <= self.seed < 2**63:
            bad.append(f"seed: must be from 0 to 2^63 - 1, got {self.seed}")
        bad += self.model.problems() + self.data.problems() + self.training.problems()
        batch_problems = self.batch.value_problems(self.model.seq_length)
        bad += batch_problems + self.optimizer.problems()
        bad += self.schedule.problems(self.training.train_steps, 1 if batch_problems else self.train_tokens)
        bad += self.memory.problems(self.model.num_layers) + self.intervals.problems() + self.launch.problems()
        bad += self._split_expert_problems()
        bad += self._muon_problems() + self._lora_problems()
        bad += self.training.early_stopping_problems(self.intervals.eval_steps)
        bad += generation_problems(self.generation, self.intervals.sample_steps, self.model.seq_length)
        bad += self.telemetry.problems() + self.data.loss_mask.problems(self.model.vocab_size)
        names = [source.name for source in self.data.sources]
        bad += stage_problems(self.data.stages, names, self.model.seq_length)
        bad += self.guards.problems()
        bad += self.checkpoints.problems(
            save_steps=self.intervals.save_steps,
            eval_steps=self.intervals.eval_steps,
            train_steps=self.training.train_steps,
        )
        bad += [
            f"deepspeed.{key}: follows from {ours}; set that instead"
            for key, ours in OWNED_BY_US.items()
            if key in self.deepspeed
        ]
        bad += [
            f"deepspeed.zero_optimization.{key}: follows from {ours}; set that instead"
            for key, ours in ZERO_KEYS_OWNED_BY_US.items()
            if key in self.deepspeed.get("zero_optimization", {})
        ]
        if bad:
            return bad  # what follows divides by these numbers
        bad = self.checkpoints.export_problems(self.model)
        layout_problems = self.parallel.problems(ranks, self.model)
        bad += layout_problems + self._distillation_problems()
        if not layout_problems:
            bad += budget_problems(self.memory, self.model, self.parallel, self.rank_share())
        offloads = bool(self.memory.offload())
        bad += precision_problems(self.training.precision, self.parallel.zero_stage, offloads=offloads)
        bad += self.parallel.stage_problems(self.training.precision, generates=self.generation is not None)
        for index, stage in enumerate(self.batch.seq_length_ramp):
            where = f"batch.seq_length_ramp[{index}].seq_length"
            bad += self.parallel.sequence_problems(stage.seq_length, where)
        bad += self.memory.offload_problems(self.parallel.zero_stage, self.optimizer)
        if self.parallel.divides(ranks):
            bad += self.batch.problems(self.parallel.data_parallel_size(ranks))
        return bad
