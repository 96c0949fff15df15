"""The DeepSpeed engine around a model, its config generated from ours."""

import logging
import math
from collections.abc import Callable
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from torch import nn

from gptdist.config.run import RunConfig
from gptdist.data.batches import Batch
from gptdist.device.swapping import check_locked_memory
from gptdist.errors import TrainingError
from gptdist.mesh.groups import Mesh, ModelParallelUnit
from gptdist.model.host_memory import SWAPPED_VALUES
from gptdist.model.memory import REDUCE_BUCKET
from gptdist.model.parameters import is_hidden_matrix, logical_shape_of, lr_scale
from gptdist.train.expert_parallel import announce_experts, group_settings
from gptdist.train.muon import IS_HIDDEN
from gptdist.train.optimizers import new_optimizer
from gptdist.train.pipeline import Stage, run_micro_batches
from gptdist.train.swap_folder import NO_SPARE_WEIGHTS, locked_bytes, swap_settings
from gptdist.train.update_gate import UpdateGate

NO_CLIPPING = 1e30
"""Passed as the norm to clip to where nothing shall be clipped: DeepSpeed then still reports the norm."""

LOWEST_LOSS_SCALE = 1.0

LR_SCALE = "lr_scale"
"""Key of a parameter group: what its learning rate is multiplied by."""


def deepspeed_config(
    config: RunConfig, mesh: Mesh, dtype: torch.dtype, model: nn.Module | None = None
) -> dict[str, Any]:
    """Return DeepSpeed's config: what follows from ours, and the ``deepspeed`` section passed through.

    By default DeepSpeed's buffers for gradients have room for 500 M values, however few there are: 2 GB in fp32. They
    get no more than the parameters of ``model`` that this rank trains, if it is given.
    """
    zero: dict[str, Any] = {"stage": config.parallel.zero_stage}
    if model is not None:
        values = sum(getattr(one, "ds_numel", one.numel()) for one in model.parameters() if one.requires_grad)
        zero["reduce_bucket_size"] = min(REDUCE_BUCKET, values)
    zero |= config.deepspeed.get("zero_optimization", {})
    for what, kept_on in config.memory.offload().items():
        zero[what] = {"device": kept_on, "pin_memory": torch.cuda.is_available()}
        if kept_on == "nvme":
            zero[what] |= swap_settings(config, mesh, what)
    if config.memory.swaps:
        zero = {"sub_group_size": SWAPPED_VALUES, **zero}
    if config.memory.offload_parameters == "nvme":
        zero = {**NO_SPARE_WEIGHTS, **zero}
    clips_itself = _is_plain_optimizer(config, dtype)
    derived: dict[str, Any] = {
        # DeepSpeed takes all ranks that hold the same weights for replicas, context-parallel ones too.
        "train_batch_size": config.batch.global_batch_size * mesh.layout.context_parallel_size,
        "train_micro_batch_size_per_gpu": config.batch.micro_batch_size,
        "zero_optimization": zero,
        "gradient_clipping": 0.0 if clips_itself else (config.optimizer.max_grad_norm or NO_CLIPPING),
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    if dtype == torch.bfloat16:
        derived["bf16"] = {"enabled": True}
    elif dtype == torch.float16:
        scale = config.training.loss_scale
        derived["fp16"] = {
            "enabled": True,
            "initial_scale_power": scale.initial_power,
            "loss_scale_window": scale.window_steps,
            "hysteresis": scale.hysteresis,
            "min_loss_scale": int(LOWEST_LOSS_SCALE),
        }
    if dtype != torch.float32:
        derived["data_types"] = {"grad_accum_dtype": "fp32"}
    return {**config.deepspeed, **derived}


def make_optimizer(model: nn.Module, config: RunConfig) -> torch.optim.Optimizer:
    """Return the optimizer of all parameters, with weight decay on matrices only, and muP's scales of the rate."""
    settings = config.optimizer
    groups: dict[tuple[bool, float, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            # By logical shape: under ZeRO-3 every parameter is flat.
            is_muons = settings.kind == "muon" and is_hidden_matrix(name)
            is_split_expert = bool(group_settings(parameter))
            key = len(logical_shape_of(parameter)) > 1, lr_scale(name, config.model), is_muons, is_split_expert
            groups.setdefault(key, []).append(parameter)
    return new_optimizer(
        [
            {
                "params": parameters,
                "weight_decay": settings.weight_decay if is_matrix else 0.0,
                "lr": settings.lr * scale,
                LR_SCALE: scale,
                IS_HIDDEN: is_muons,
                **group_settings(parameters[0]),
            }
            for (is_matrix, scale, is_muons, _), parameters in groups.items()
        ],
        settings,
    )


class Engine:
    """One rank's share of model and optimizer: forward, backward, update."""

    def __init__(self, model: nn.Module, config: RunConfig, mesh: Mesh, dtype: torch.dtype) -> None:
        """Hand ``model`` to DeepSpeed. Collective: every rank calls it."""
        log = logging.getLogger("DeepSpeed")
        log.setLevel(logging.WARNING)
        log.addFilter(_is_news)
        self._mesh = mesh
        self._clip_norm = config.optimizer.max_grad_norm or NO_CLIPPING if _is_plain_optimizer(config, dtype) else None
        self._grad_norm = 0.0
        if config.model.moe is not None:
            announce_experts(model, mesh, config.model.moe.num_experts)
        optimizer, settings = make_optimizer(model, config), deepspeed_config(config, mesh, dtype, model)
        if config.memory.swaps:
            sub_group_size = settings["zero_optimization"]["sub_group_size"]
            check_locked_memory(locked_bytes(config, mesh, dtype, optimizer.param_groups, sub_group_size))
        self.deepspeed, _, _, _ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config=settings,
            mpu=ModelParallelUnit(mesh),
        )
        if self.loss_scale is not None:
            self.optimizer.loss_scaler.raise_error_at_min_scale = False  # ours says what to do
        self._gate = UpdateGate(self.deepspeed.basic_optimizer)
        self.stage = Stage(self.deepspeed, mesh, sequence_parallel=config.parallel.sequence_parallel)

    @property
    def module(self) -> nn.Module:
        """The model."""
        module: nn.Module = self.deepspeed.module
        return module

    @property
    def optimizer(self) -> Any:
        """DeepSpeed's optimizer, or the plain one where ZeRO is off."""
        return self.deepspeed.optimizer

    @property
    def grad_norm(self) -> float | None:
        """L2 norm of the last gradient over all parameters, before clipping; None where nobody knows it.

        Where DeepSpeed found values that are not finite, it is infinite.
        """
        if self._clip_norm is not None:
            return self._grad_norm
        norm = self.optimizer._global_grad_norm
        return None if norm is None else float(norm)

    @property
    def loss_scale(self) -> float | None:
        """What the loss is multiplied by in fp16; None in other formats."""
        scaler = getattr(self.optimizer, "loss_scaler", None)
        return float(scaler.cur_scale) if scaler is not None and scaler.dynamic else None

    @property
    def overflowed(self) -> bool:
        """Whether the last update was left out because gradients overflowed fp16; the same on every rank."""
        return self.loss_scale is not None and bool(self.optimizer.overflow)

    def set_learning_rate(self, lr: float) -> None:
        """Use ``lr`` from the next update on, scaled as each group's parameters need it."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group[LR_SCALE]

    def set_batch_size(self, global_batch_size: int) -> None:
        """Let the next step take so many samples; call it between steps."""
        engine, replicated = self.deepspeed, global_batch_size * self._mesh.layout.context_parallel_size
        if engine.train_batch_size() == replicated:
            return
        engine.set_train_batch_size(replicated)
        engine.micro_steps = 0  # DeepSpeed ends a step where a multiple of the number a step has been done, ever

    def run_micro_batches(self, count: int, load: Callable[[int], Batch], factor: float) -> float:
        """Add the gradients of ``count`` micro batches; ``update`` follows.

        Return the sum of ``factor`` x their losses, 0 but on the last stage. ``load`` returns micro batch i, right
        before its forward pass. Collective: every rank calls it.
        """
        return run_micro_batches(self.stage, count, load, self._accumulate, factor)

    def _accumulate(self, loss: torch.Tensor, is_scaled: bool) -> None:
        """Add the gradients of one micro batch.

        The update is not done with the last one: it asks all stages, which come to that at other times.
        """
        if hasattr(self.optimizer, "clear_backward_seen_flag"):  # a stage does several backward passes in a row
            self.optimizer.clear_backward_seen_flag()
        self.deepspeed.backward(loss, scale_wrt_gas=not is_scaled)
        if not self.deepspeed.is_gradient_accumulation_boundary():
            self.deepspeed.step()

    def update(self, may_update: Callable[[float | None], bool] = lambda grad_norm: True) -> None:
        """Update the weights if ``may_update`` says so of the gradient's norm, which is the same on every rank.

        If not, weights and moments keep every bit. Either way the gradients are cleared. An infinite norm has to be
        refused; where fp16 overflowed, the norm is None, and there is no update. Collective: every rank calls it, with
        the same answer.

        Communication: an all-reduce of one value over all ranks.

        Raises:
            TrainingError: gradients overflow fp16 whatever the loss scale, on every rank.
        """
        scale = self.loss_scale
        if self._clip_norm is not None:
            self._grad_norm = clip_gradients(self.module, self._clip_norm, self._mesh)
        self._gate.guard(self.deepspeed.step, lambda: may_update(self._agreed_grad_norm()))
        if scale == LOWEST_LOSS_SCALE and self.overflowed:
            raise TrainingError(
                f"training.precision: gradients overflow fp16 even with a loss scale of {scale:g}; "
                f"look at the data, lower optimizer.lr, or use bf16"
            )
        self.stage.share_embedding()

    def _agreed_grad_norm(self) -> float | None:
        norm = None if self.overflowed else self.grad_norm
        if norm is None:
            return None
        if not math.isfinite(norm) or norm < 0.0:  # DeepSpeed also says -1 for it
            norm = math.inf
        if self._mesh.layout.world_size > 1:
            agreed = torch.tensor(norm, dtype=torch.float64, device=self.deepspeed.device)
            dist.all_reduce(agreed, op=dist.ReduceOp.MAX)
            norm = float(agreed)
        return norm


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether DeepSpeed's warning is one here: optimizers that it has not tested are tested by us.

    That a disk wears out, which every rank would say, stands in the docs.
    """
    return not any(known in record.getMessage() for known in ("untested optimizer", "Offloading to NVMe"))


def clip_gradients(model: nn.Module, max_norm: float, mesh: Mesh) -> float:
    """Scale gradients to ``max_norm`` at most, and return their L2 norm before that.

    For ZeRO stage 0 in fp32, where DeepSpeed does not report the norm. What every tensor-parallel rank holds whole is
    counted once.

    Communication: over the model group, an all-reduce of one value; likewise over the expert group.
    """
    squares = torch.zeros((), dtype=torch.float64)
    experts_squares = torch.zeros((), dtype=torch.float64)
    gradients = [(parameter, parameter.grad) for parameter in model.parameters() if parameter.grad is not None]
    for parameter, grad in gradients:
        if mesh.place.tp_rank == 0 or getattr(parameter, "tensor_model_parallel", False):
            summed = experts_squares if group_settings(parameter) else squares
            # Rows first: in one go, fp32 loses digits, and fp64 takes 40 times as long.
            summed += torch.linalg.vector_norm(grad, dim=-1).double().square().sum().cpu()
    if mesh.layout.expert_parallel_size > 1:
        total = experts_squares.to(gradients[0][1].device)
        dist.all_reduce(total, group=mesh.expert_group)
        squares += total.cpu()
    if dist.get_world_size(mesh.model_group) > 1:
        total = squares.to(gradients[0][1].device)
        dist.all_reduce(total, group=mesh.model_group)
        squares = total.cpu()
    norm = float(squares.sqrt())
    if norm > max_norm:
        for _, grad in gradients:
            grad.mul_(max_norm / (norm + 1e-6))
    return norm


def _is_plain_optimizer(config: RunConfig, dtype: torch.dtype) -> bool:
    """Whether DeepSpeed leaves the optimizer unwrapped."""
    return config.parallel.zero_stage == 0 and dtype == torch.float32
