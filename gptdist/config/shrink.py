"""A run made small: what ``gptdist rehearse`` trains in the place of a config that needs many machines; no torch.

Every switch stays, every axis is split, all that happens in the real run happens within a few steps; sizes are the
smallest that are legal.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptdist.config.precision import LossScaleConfig, precision_problems
from gptdist.config.recomputation import Recomputed, StageActivations, least_bytes
from gptdist.config.run import RunConfig
from gptdist.config.shrink_axes import Axes, small_axes
from gptdist.config.shrink_course import Course, Lengths
from gptdist.config.shrink_model import small_model

EVAL_SAMPLES = 4
MAX_NEW_TOKENS = 8
STARTUP_SECONDS, STALL_SECONDS = 600.0, 300.0
"""How long a rehearsal waits for a sign of its ranks, at most."""


@dataclass(frozen=True)
class Materials:
    """What a rehearsal works with."""

    folder: Path
    """For all that it makes; absolute."""

    made_vocab_size: int | None = None
    """Of the tokenizer whose data is made for it; None where the run's own tokenizer and data are read."""

    made_end_token: str = "<|endoftext|>"
    """How that tokenizer spells the end of a document."""

    packed_for: int | None = None
    """Tokens of a sample that the run's own data was packed for, where it was."""

    has_fp16: bool = True
    """Whether this machine's processor computes in fp16."""

    @property
    def tokenizer(self) -> Path:
        """Where the tokenizer is that is made."""
        return self.folder / "data" / "tokenizer"

    def source(self, name: str) -> Path:
        """Return where the data is that stands for a source; a source is called by its folder's name."""
        return self.folder / "data" / "sources" / name

    def validation(self, name: str) -> Path:
        """Return where the data is that stands for a validation set."""
        return self.folder / "data" / "validation" / name

    @property
    def encryption_key(self) -> Path:
        """Where the key is that is made."""
        return self.folder / "keys" / "encryption.hex"

    @property
    def private_key(self) -> Path:
        """Where the key is that signs."""
        return self.folder / "keys" / "private.pem"

    @property
    def public_key(self) -> Path:
        """Where the key is that tells signatures."""
        return self.folder / "keys" / "public.pem"

    @property
    def store(self) -> Path:
        """Folder that stands for the remote store."""
        return self.folder / "store"


@dataclass(frozen=True)
class SmallRun:
    """A run that is small, and what it does not show of the real one."""

    config: RunConfig
    ranks: int
    left_out: tuple[str, ...]
    """A line for each."""


def shrink(config: RunConfig, world_size: int, materials: Materials, *, ranks: int | None = None) -> SmallRun:
    """Return ``config``, which has no problems on ``world_size`` ranks, made small.

    Args:
        config: the real one.
        world_size: ranks of the real run.
        materials: folders, and the data.
        ranks: of the rehearsal; default: the fewest on which every axis is split that is split in the real run.

    Raises:
        ConfigError: so many ranks cannot be laid out like the real ones.
    """
    real = Axes.of(config, world_size)
    small = small_axes(real, ranks)
    lengths = Lengths.of(config, small, materials.packed_for)
    course = Course.of(config, real, small, lengths)
    tree = config.tree()
    tree["run_dir"] = str(materials.folder / "run")
    tree["model"] = small_model(
        config.model, real, small, seq_length=lengths.sample, vocab_size=materials.made_vocab_size
    )
    tree["batch"] = course.batch
    tree["schedule"] = course.schedule(config, lengths)
    tree["intervals"] = course.intervals(config)
    tree["training"] |= _training(config, course, materials)
    tree["data"] |= _data(config, course, lengths, materials)
    tree["parallel"] |= _parallel(config, small)
    tree["memory"] |= _memory(config, tree["model"]["num_layers"])
    tree["checkpoints"] |= _checkpoints(config, course, materials)
    tree["launch"] |= _launch(config, small.ranks)
    tree["telemetry"] |= {"wandb": None}
    if config.telemetry.profile_steps is not None:
        tree["telemetry"]["profile_steps"] = [2, 2]
    if config.generation is not None:
        new = min(MAX_NEW_TOKENS, config.generation.max_new_tokens)
        tree["generation"] |= {"prompts": [""], "prompts_file": None, "max_new_tokens": new}
    small_config = _with_budget(RunConfig.from_tree(tree, origin="rehearsal"), config)
    return SmallRun(small_config, small.ranks, (*real.left_out(small), *_left_out(config, small_config)))


def _training(config: RunConfig, course: Course, materials: Materials) -> dict[str, Any]:
    training = config.training
    changed: dict[str, Any] = {"train_steps": course.train_steps, "init_from": None, "keep_zeros": False}
    changed["device"] = "cpu"
    if training.precision == "auto" and training.device == "cuda":
        changed["precision"] = "bf16"  # what auto is there
    if training.precision == "fp16" and not materials.has_fp16:
        changed |= {"precision": "bf16", "loss_scale": LossScaleConfig().tree()}
    changed["collective_timeout_seconds"] = min(training.collective_timeout_seconds, STALL_SECONDS)
    if training.early_stopping is not None:
        patience = course.train_steps - 2  # it may end the run one step before its end, and no earlier
        changed["early_stopping"] = training.early_stopping.tree() | {"patience_evaluations": patience}
    return changed


def _data(config: RunConfig, course: Course, lengths: Lengths, materials: Materials) -> dict[str, Any]:
    data, tree = config.data, config.data.tree()
    changed = {"eval_samples": min(EVAL_SAMPLES, data.eval_samples or EVAL_SAMPLES), "validation": tree["validation"]}
    changed["stages"] = course.data_stages(config, lengths)
    for one in changed["validation"]:
        one["samples"] = None
    if materials.made_vocab_size is None:
        return changed
    changed |= {"tokenizer": str(materials.tokenizer), "sources": tree["sources"]}
    for own, source in zip(changed["sources"], data.sources, strict=True):
        own |= {"path": str(materials.source(source.name)), "max_epochs": None}
    for one in changed["validation"]:
        one["path"] = str(materials.validation(one["name"]))
    if data.loss_mask.ignore_tokens:
        changed["loss_mask"] = data.loss_mask.tree() | {"ignore_tokens": [materials.made_end_token]}
    return changed


def _parallel(config: RunConfig, small: Axes) -> dict[str, Any]:
    return {
        "tensor_parallel_size": small.tensor,
        "pipeline_parallel_size": small.pipeline,
        "context_parallel_size": small.context,
        "expert_parallel_size": small.expert,
        "sequence_parallel": config.parallel.sequence_parallel and small.tensor > 1,
    }


def _memory(config: RunConfig, num_layers: int) -> dict[str, Any]:
    """Return what changes: there is no disk to swap to, and as much of the layers is computed again."""
    memory = config.memory
    changed: dict[str, Any] = {"nvme_path": None}
    for name in ("offload_optimizer", "offload_parameters"):
        changed[name] = "cpu" if getattr(memory, name) == "nvme" else getattr(memory, name)
    if memory.recompute_layers is not None:
        is_all = memory.recompute_layers == config.model.num_layers
        changed["recompute_layers"] = num_layers if is_all else max(1, num_layers // 2)
    return changed


def _checkpoints(config: RunConfig, course: Course, materials: Materials) -> dict[str, Any]:
    checkpoints, protection = config.checkpoints, config.checkpoints.protection
    changed: dict[str, Any] = {"keep": course.keep(checkpoints.keep)}
    changed["protection"] = protection.tree()
    if protection.encrypt:
        changed["protection"]["key_path"] = str(materials.encryption_key)
    if protection.trusted_key_path is not None:
        # Also where the real run signs by hand: its own checkpoints would count as damaged meanwhile.
        changed["protection"]["signing_key_path"] = str(materials.private_key)
        changed["protection"]["trusted_key_path"] = str(materials.public_key)
    if checkpoints.remote is not None:
        changed["remote"] = None
        if re.fullmatch(r"[\w./ =+-]+", str(materials.store)):  # what a URL of a store may hold
            keep = course.keep(checkpoints.remote.keep)
            changed["remote"] = checkpoints.remote.tree() | {"url": f"file://{materials.store}", "keep": keep}
    return changed


def _launch(config: RunConfig, ranks: int) -> dict[str, Any]:
    launch = config.launch
    return {
        "ranks_per_node": ranks,
        "threads_per_rank": None,
        "max_restarts": 0,
        "time_limit_minutes": None,
        "startup_seconds": min(launch.startup_seconds, STARTUP_SECONDS),
        "stall_seconds": min(launch.stall_seconds, STALL_SECONDS),
    }


def _with_budget(small: RunConfig, config: RunConfig) -> RunConfig:
    """Return ``small`` with a budget of activations that makes it compute some of them again."""
    if config.memory.recompute != "budget":
        return small
    stages = [
        StageActivations.of(small.model, small.parallel, small.rank_share(), number)
        for number in range(small.parallel.pipeline_parallel_size)
    ]
    least, most = max(map(least_bytes, stages)), max(stage.peak(Recomputed()) for stage in stages)
    memory = small.memory.model_copy(update={"activation_bytes": (least + most) // 2})
    return small.model_copy(update={"memory": memory})


def _left_out(config: RunConfig, small: RunConfig) -> list[str]:
    """Return what the small run does not show of ``config``, beside axes."""
    lines = []
    if config.telemetry.wandb is not None:
        lines.append("telemetry.wandb: nothing is sent")
    if config.checkpoints.remote is not None:
        instead = "copies go to a folder instead" if small.checkpoints.remote is not None else "nothing is copied"
        lines.append(f"checkpoints.remote: {config.checkpoints.remote.url} is not asked; {instead}")
    if config.checkpoints.protection.tree() != small.checkpoints.protection.tree():
        lines.append("checkpoints.protection: keys are made anew, the run's own are not read")
    if config.memory.swaps:
        lines.append("memory.nvme_path: nothing is swapped to a disk; what would be stays in memory")
    if config.training.init_from is not None:
        lines.append(f"training.init_from: weights of {config.training.init_from} do not fit the small model")
    if config.training.keep_zeros:
        lines.append("training.keep_zeros: the small model has no zeros to hold")
    if config.launch.time_limit_minutes is not None:
        lines.append("launch.time_limit_minutes: no time limit")
    if config.training.precision == "auto" and config.training.device == "auto":
        refused = precision_problems("bf16", config.parallel.zero_stage, offloads=bool(config.memory.offload()))
        there = f"and refused there: {refused[0]}" if refused else "training.precision=bf16 rehearses that"
        lines.append(f"training.precision: auto is fp32 here and bf16 on CUDA; {there}")
    if config.training.precision != small.training.precision and config.training.precision == "fp16":
        lines.append("training.precision: this processor does not compute in fp16; bf16 is in its place, with no scale")
    return lines
