"""Number formats, and the loss scale that fp16 needs."""

from typing import Literal

from gptdist.config.section import Section

Precision = Literal["auto", "fp32", "bf16", "fp16", "fp8"]


class LossScaleConfig(Section):
    """What the loss is multiplied by in fp16, so that small gradients do not become 0; gradients are divided by it.

    An update whose gradients overflow is left out. The second such update, and every one after it, halves the scale;
    ``window_steps`` updates without one double it, and forgive one overflow again.
    """

    initial_power: int = 16
    """The scale begins at 2 to this power."""

    window_steps: int = 1000
    """Updates without overflow after which the scale is doubled."""

    hysteresis: int = 2
    """So many overflows halve the scale; after that, each one does."""

    def problems(self, precision: str) -> list[str]:
        """Return every value out of its range, or without a use in ``precision``."""
        if precision != "fp16":
            same = self == LossScaleConfig()
            return [] if same else [f"training.loss_scale: belongs to precision fp16, not {precision}; remove it"]
        bad = [
            f"training.loss_scale.{name}: must be at least 1, got {getattr(self, name)}"
            for name in ("window_steps", "hysteresis")
            if getattr(self, name) < 1
        ]
        if not 0 <= self.initial_power <= 32:
            bad.append(f"training.loss_scale.initial_power: must be from 0 to 32, got {self.initial_power}")
        return bad


def precision_problems(precision: str, zero_stage: int, *, offloads: bool = False) -> list[str]:
    """Return why a number format cannot be trained at the ZeRO stage, or with what is offloaded."""
    if precision == "fp8":
        return ["training.precision: fp8 needs layers of Transformer Engine, which the model has none of; use bf16"]
    if precision == "bf16" and zero_stage == 0:
        return [
            "parallel.zero_stage: DeepSpeed has no fp32 gradient accumulation for bf16 at stage 0; "
            "use 1, or set training.precision to fp32"
        ]
    if precision == "fp16" and zero_stage not in (1, 2):
        reason = (
            "DeepSpeed has no fp32 gradient accumulation for fp16 at stage 0"
            if zero_stage == 0
            else "at stage 3 DeepSpeed divides gradients by the next step's loss scale"
        )
        return [f"parallel.zero_stage: {reason}; use 1 or 2, or set training.precision to bf16"]
    if precision == "fp16" and offloads:
        return ["training.precision: fp16 is not tested with offload; use bf16, or leave memory.offload_optimizer out"]
    return []
