"""Where DeepSpeed keeps a rank's master weights and moments, as fragments of flat local tensors.

Each of DeepSpeed's optimizers has its own book-keeping; this is the one file that knows it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gptdist.checkpoint.manifest import WEIGHT, LossScale
from gptdist.config.optimization import OptimizerConfig
from gptdist.model.parameters import LocalParameter, is_hidden_matrix

MOMENT_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Piece:
    """The range of a local parameter, which may be empty, whose optimizer state a rank keeps, and where."""

    local: LocalParameter
    start: int
    """First value, counted in the flat local tensor."""

    numel: int
    offset: int
    """First value, counted in the tensor that is optimized."""

    @property
    def valid_numel(self) -> int:
        """Number of values that are no padding, which stands only at the end of a local tensor."""
        local = self.local
        assert local.valid_length == local.local_length or local.logical.outer == 1, "padding inside a tensor"
        valid = local.logical.outer * local.valid_length * local.logical.inner
        return max(0, min(self.numel, valid - self.start))


@dataclass(frozen=True)
class Fragment(Piece):
    """Such a range with its values."""

    states: dict[str, Tensor]
    """Master weight and moments, each a flat view into DeepSpeed's own memory: writing to it changes the run. The
    weight is fp32 unless it is frozen, moments may be bf16."""


@dataclass(frozen=True)
class WholeState:
    """What the optimizer keeps of a whole tensor, alike on every rank that holds some of it."""

    local: LocalParameter
    state: str
    """Its name; a tensor has one of each."""

    values: Tensor
    """In fp32, of a shape of its own; writing to it changes the run."""


@runtime_checkable
class KeepsWholeStates(Protocol):
    """An optimizer that does."""

    def whole_states(self) -> list[WholeState]:
        """Return all of them."""


class OptimizerFragments:
    """The fragments that this rank holds, and the way back from them to the model's weights."""

    def __init__(self, optimizer: Any, locals_: list[LocalParameter], settings: OptimizerConfig) -> None:
        """Look into ``optimizer``: a ZeRO-1/2, ZeRO-3 or bf16 optimizer of DeepSpeed, or a plain torch one."""
        self.locals = locals_
        self.settings = settings
        self._optimizer = optimizer
        self._locals = {id(local.parameter): local for local in locals_}
        self.is_zero3 = hasattr(optimizer, "fp32_partitioned_groups_flat")
        self.is_plain = isinstance(optimizer, torch.optim.Optimizer)
        flats = enumerate(optimizer.fp32_partitioned_groups_flat) if self.is_zero3 else ()
        self._swapped = {flat: index for index, flat in flats if optimizer._swappable_optimizer_subgroup(index)}

    @property
    def stay_in_memory(self) -> bool:
        """Whether all fragments are there at once, because DeepSpeed keeps none on a disk."""
        return not self._swapped

    def all(self, *, writes: bool = False) -> Iterator[Fragment]:
        """Yield every fragment of this rank, in the same order each time; moments that do not exist yet become zeros.

        What DeepSpeed keeps on a disk is in memory until the next fragment is asked for, one sub-group at a time.

        Args:
            writes: what is written to the fragments goes back to the disk.
        """
        for flat, pieces in self.pieces().items():
            with self._in_memory(flat, writes=writes or not self._has_moments(flat, pieces)):
                for piece in pieces:
                    if piece.numel:
                        yield Fragment(**vars(piece), states=self._states(flat, piece))

    def pieces(self) -> dict[Tensor, list[Piece]]:
        """Return what each tensor that is optimized holds, in the same order on all ranks that share it by ZeRO."""
        ranges = self._zero3_ranges() if self.is_zero3 else self._plain_ranges() if self.is_plain else self._ranges()
        found: dict[Tensor, list[Piece]] = {}
        for parameter, start, numel, flat, offset in chain(ranges, self._frozen_ranges()):
            found.setdefault(flat, []).append(Piece(self._locals[id(parameter)], start, numel, offset))
        return found

    def states_of(self, local: LocalParameter) -> tuple[str, ...]:
        """Return the names of all that is kept of each value of a parameter."""
        if not local.parameter.requires_grad:
            return (WEIGHT,)
        is_hidden, is_matrix = is_hidden_matrix(local.logical.name), len(local.logical.shape) > 1
        return (WEIGHT, *self.settings.moments(of_hidden_matrix=is_hidden, of_matrix=is_matrix))

    def is_alike_on_replicas(self, piece: Piece) -> bool:
        """Whether every data-parallel replica holds the piece, as ZeRO has not cut it."""
        return self.is_plain or not (self.is_zero3 or piece.local.parameter.requires_grad)

    def whole_states(self) -> list[WholeState]:
        """Return what the optimizer keeps of whole tensors of which this rank holds some."""
        optimizer = self.torch_optimizer
        return optimizer.whole_states() if isinstance(optimizer, KeepsWholeStates) else []

    def optimizer_step(self) -> int:
        """Return how many updates the moments have seen."""
        steps = {int(state["step"]) for state in self.torch_optimizer.state.values() if "step" in state}
        assert len(steps) <= 1, f"parameter groups disagree on the optimizer step: {sorted(steps)}"
        return steps.pop() if steps else 0

    def set_optimizer_step(self, step: int) -> None:
        """Make all moments have seen ``step`` updates; those of each optimized tensor have a counter of their own."""
        for state in self.torch_optimizer.state.values():
            beside = state.get("exp_avg_sq", state.get("step"))
            if beside is not None:
                state["step"] = torch.tensor(float(step), dtype=torch.float32, device=beside.device)

    def loss_scale(self) -> LossScale | None:
        """Return where fp16's loss scale stands; None in other formats."""
        scaler = getattr(self._optimizer, "loss_scaler", None)
        if scaler is None or not scaler.dynamic:
            return None
        return LossScale(
            scale=float(scaler.cur_scale),
            updates=scaler.cur_iter,
            last_overflow=scaler.last_overflow_iter,
            overflows_left=scaler.cur_hysteresis,
        )

    def set_loss_scale(self, saved: LossScale | None) -> None:
        """Go on from where the loss scale stood; a run that was not in fp16 before begins anew."""
        if saved is not None and self.loss_scale() is not None:
            scaler = self._optimizer.loss_scaler
            scaler.cur_scale, scaler.cur_iter = saved.scale, saved.updates
            scaler.last_overflow_iter, scaler.cur_hysteresis = saved.last_overflow, saved.overflows_left

    def weights_follow(self) -> None:
        """Recompute the model's weights from the master weights. Collective: every rank calls it."""
        optimizer = self._optimizer
        if self.is_plain:
            return  # they are the same tensors
        if not self.is_zero3:
            optimizer.update_lp_params()
            return
        for index, flat in enumerate(optimizer.fp32_partitioned_groups_flat):
            kept = optimizer.fp16_partitioned_groups_flat[index]
            with self._in_memory(flat):
                if kept is None:  # weights in files
                    optimizer._partitioned_params_swap_out(index)
                    continue
                kept.data.copy_(flat.data)
            group = optimizer.fp16_partitioned_groups[index]
            for old, new in zip(group, optimizer.unflatten(kept, group), strict=True):
                old.data = new.data
        persistent = optimizer.persistent_parameters
        if len(persistent):
            persistent[0].partition(persistent)
            persistent[0].all_gather(persistent)

    @property
    def torch_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer that does the updates, which DeepSpeed may have wrapped."""
        inner: torch.optim.Optimizer = self._optimizer if self.is_plain else self._optimizer.optimizer
        return inner

    @contextmanager
    def _in_memory(self, flat: Tensor, *, writes: bool = False) -> Iterator[None]:
        """Have what belongs to ``flat`` in memory; DeepSpeed leaves empty tensors of what it has swapped out."""
        index = self._swapped.get(flat)
        if index is None:
            yield
            return
        self._optimizer._optimizer_states_and_gradient_swap_in(index)
        try:
            yield
        finally:
            if writes:
                self._optimizer._optimizer_states_and_gradient_swap_out(index)
            else:
                self._optimizer._release_swap_buffers(index)

    def _has_moments(self, flat: Tensor, pieces: list[Piece]) -> bool:
        held = self.torch_optimizer.state.get(flat, {})
        return all(state in held for piece in pieces for state in self.states_of(piece.local) if state != WEIGHT)

    def _states(self, flat: Tensor, piece: Piece) -> dict[str, Tensor]:
        names, end = self.states_of(piece.local), piece.offset + piece.numel
        return {name: self._state(flat, name).view(-1)[piece.offset : end] for name in names}

    def _state(self, flat: Tensor, state: str) -> Tensor:
        if state == WEIGHT:
            return flat.data
        held = self.torch_optimizer.state[flat]
        if state not in held:
            held[state] = torch.zeros_like(flat, dtype=MOMENT_TYPES[self.settings.moment_precision])
            if state == "exp_avg_sq":  # a save may come before the first update, where fp16 overflowed until then
                held["step"] = torch.zeros((), dtype=torch.float32, device=flat.device)
        values: Tensor = held[state]
        return values

    def _plain_ranges(self) -> Iterator[tuple[nn.Parameter, int, int, Tensor, int]]:
        for local in self._locals.values():
            if local.parameter.requires_grad:
                yield local.parameter, 0, local.numel, local.parameter, 0

    def _frozen_ranges(self) -> Iterator[tuple[nn.Parameter, int, int, Tensor, int]]:
        """Yield the weights that no optimizer knows, in the model's own memory and number format."""
        parameter: Any
        for parameter in (local.parameter for local in self.locals if not local.parameter.requires_grad):
            if not self.is_zero3:
                yield parameter, 0, parameter.numel(), parameter, 0
                continue
            kept = parameter.ds_tensor
            start = dist.get_rank(self._optimizer.dp_process_group) * kept.ds_numel
            valid = max(0, min(kept.ds_numel, parameter.ds_numel - start))
            yield parameter, start if valid else 0, valid, kept, 0

    def _ranges(self) -> Iterator[tuple[nn.Parameter, int, int, Tensor, int]]:
        optimizer = self._optimizer
        if hasattr(optimizer, "bf16_groups"):
            groups, flats = optimizer.bf16_groups, optimizer.fp32_groups_flat_partition
        else:
            groups, flats = optimizer.bit16_groups, optimizer.single_partition_of_fp32_groups
        for group, flat in zip(groups, flats, strict=True):
            for parameter in group:
                mapping = parameter._hp_mapping
                if mapping is None:
                    yield parameter, 0, 0, flat, 0
                else:
                    low, high = mapping.lp_fragment_address, mapping.hp_fragment_address
                    yield parameter, low.start, low.numel, flat, high.start

    def _zero3_ranges(self) -> Iterator[tuple[nn.Parameter, int, int, Tensor, int]]:
        optimizer = self._optimizer
        rank = dist.get_rank(optimizer.dp_process_group)
        for index, group in enumerate(optimizer.fp16_groups):
            flat = optimizer.fp32_partitioned_groups_flat[index]
            for parameter in group:
                _, offset, numel = optimizer.grad_position[optimizer.get_param_id(parameter)]
                start = rank * parameter.ds_tensor.ds_numel
                valid = max(0, min(numel, parameter.ds_numel - start))
                yield parameter, start if valid else 0, valid, flat, offset
