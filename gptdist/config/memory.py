"""What is kept in memory between the forward and the backward pass."""

from typing import Literal

from gptdist.config.section import Section


class MemoryConfig(Section):
    """Activations that are computed again in the backward pass instead of being kept; losses stay the same."""

    recompute: Literal["none", "attention", "mlp", "full"] = "none"
    """``attention``: scores and weighted values, of which fused kernels keep little; ``mlp``: the feed-forward part,
    some 40 % of what is kept; ``full``: whole layers, of which only the input is kept, for a third more FLOPs.
    """

    recompute_layers: int | None = None
    """With ``full``: how many layers, the first ones; default all."""

    def problems(self, num_layers: int) -> list[str]:
        """Return every value out of its range for a model of ``num_layers``."""
        layers = self.recompute_layers
        if layers is None:
            return []
        if self.recompute != "full":
            return [f"memory.recompute_layers: belongs to recompute full, not {self.recompute}; remove it"]
        if not 1 <= layers <= num_layers:
            return [f"memory.recompute_layers: must be from 1 to model.num_layers ({num_layers}), got {layers}"]
        return []
