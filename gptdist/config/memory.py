"""What is kept in memory between the forward and the backward pass, and what in which memory."""

from pathlib import Path
from typing import Literal

from gptdist.config.optimization import OptimizerConfig
from gptdist.config.section import Section


class MemoryConfig(Section):
    """Activations that are computed again instead of being kept, and what leaves the GPU; losses stay the same."""

    recompute: Literal["none", "attention", "mlp", "full", "budget"] = "none"
    """``attention``: scores and weighted values, of which fused kernels keep little; ``mlp``: the feed-forward part,
    some 40 % of what is kept; ``full``: whole layers, of which only the input is kept, for a third more FLOPs;
    ``budget``: of each layer as much of these as ``activation_bytes`` asks for, the cheapest first.
    """

    activation_bytes: int | None = None
    """With ``budget``: bytes of activations that a rank may keep at once between forward and backward pass, of all
    micro batches under way, and with those of a layer that is computed again."""

    recompute_layers: int | None = None
    """With ``full``: how many layers, the first ones; default all."""

    offload_optimizer: Literal["none", "cpu", "nvme"] = "none"
    """``cpu``: master weights and moments lie in the machine's memory, and are updated there. From ZeRO stage 1.
    ``nvme``: they lie in files, and come into that memory one sub-group at a time. ZeRO stage 3 only."""

    offload_parameters: Literal["none", "cpu", "nvme"] = "none"
    """``cpu``: each rank's part of the weights lies in the machine's memory while not in use. ``nvme``: in files.
    ZeRO stage 3 only."""

    nvme_path: Path | None = None
    """Folder on a local disk of each machine for what is offloaded to ``nvme``; nothing in it outlives the run."""

    @property
    def swaps(self) -> bool:
        """Whether anything is kept in files."""
        return "nvme" in (self.offload_optimizer, self.offload_parameters)

    def offload(self) -> dict[str, str]:
        """Return where DeepSpeed is to keep what does not stay on the device."""
        devices = {"offload_optimizer": self.offload_optimizer, "offload_param": self.offload_parameters}
        return {what: device for what, device in devices.items() if device != "none"}

    def offload_problems(self, zero_stage: int, optimizer: OptimizerConfig) -> list[str]:
        """Return why nothing can be offloaded so at ``zero_stage`` with ``optimizer``."""
        bad = []
        if self.offload_optimizer == "cpu" and zero_stage == 0:
            bad.append("memory.offload_optimizer: ZeRO stage 0 cannot offload; set parallel.zero_stage to 1, 2 or 3")
        if self.offload_optimizer != "none" and optimizer.kind == "muon":
            bad.append(
                "memory.offload_optimizer: muon puts matrices together on the device; use adamw or lion, or none"
            )
        if self.offload_parameters != "none" and zero_stage != 3:
            bad.append(f"memory.offload_parameters: needs parallel.zero_stage 3, got {zero_stage}; set it, or none")
        return bad + self._swap_problems(zero_stage, optimizer)

    def _swap_problems(self, zero_stage: int, optimizer: OptimizerConfig) -> list[str]:
        bad = []
        if self.offload_optimizer == "nvme":
            if zero_stage != 3:
                bad.append(
                    f"memory.offload_optimizer: nvme needs parallel.zero_stage 3, got {zero_stage}; set it, or use cpu"
                )
            if optimizer.kind == "adafactor":
                bad.append(
                    "memory.offload_optimizer: nvme swaps moments of each value, adafactor has few; use cpu or none"
                )
            if optimizer.moment_precision != "fp32":
                bad.append(
                    f"memory.offload_optimizer: nvme swaps weights and moments in one format, moment_precision is "
                    f"{optimizer.moment_precision}; use fp32 for it, or cpu here"
                )
        if self.swaps and self.nvme_path is None:
            bad.append("memory.nvme_path: missing; nvme needs a folder on a local disk of each machine")
        if not self.swaps and self.nvme_path is not None:
            bad.append("memory.nvme_path: belongs to offload to nvme, and nothing is; remove it")
        return bad

    def problems(self, num_layers: int) -> list[str]:
        """Return every value out of its range for a model of ``num_layers``."""
        bad = self._budget_problems()
        layers = self.recompute_layers
        if layers is not None and self.recompute != "full":
            bad.append(f"memory.recompute_layers: belongs to recompute full, not {self.recompute}; remove it")
        elif layers is not None and not 1 <= layers <= num_layers:
            bad.append(f"memory.recompute_layers: must be from 1 to model.num_layers ({num_layers}), got {layers}")
        return bad

    def _budget_problems(self) -> list[str]:
        budget = self.activation_bytes
        if self.recompute == "budget" and budget is None:
            return ["memory.activation_bytes: missing; recompute budget needs the bytes that may be kept"]
        if self.recompute != "budget" and budget is not None:
            return [f"memory.activation_bytes: belongs to recompute budget, not {self.recompute}; remove it"]
        return (
            [f"memory.activation_bytes: must be at least 1, got {budget}"] if budget is not None and budget < 1 else []
        )
