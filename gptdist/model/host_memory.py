"""Bytes that one rank keeps in its machine's memory where optimizer or weights are offloaded from a GPU; no torch.

Without a GPU both memories are one, and these bytes come on top of the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gptdist.config.activations import FP32_BYTES
from gptdist.config.memory import MemoryConfig
from gptdist.config.optimization import OptimizerConfig
from gptdist.model.optimizer_memory import ZeroParts, moment_bytes
from gptdist.model.rank_weights import RankWeights

SWAPPED_VALUES = 100_000_000
"""Weights of a rank whose optimizer state is brought from a disk at a time."""

BUFFERS = {"offload_optimizer": 4, "offload_param": 5}
"""Of a sub-group that is swapped in: weights, gradients and two moments. Of parameters that are in use at once: no
module here has as many matrices of its own."""


@dataclass(frozen=True)
class HostMemory:
    """One rank's."""

    memory: MemoryConfig
    optimizer: OptimizerConfig
    weights: RankWeights
    parts: ZeroParts
    zero_stage: int
    value_bytes: int
    accumulates: bool
    """Whether a step has several micro batches."""

    swapped_values: int = SWAPPED_VALUES

    def states(self) -> int:
        """Bytes that stay there."""
        return self._of_optimizer() + self._of_weights()

    def _of_optimizer(self) -> int:
        """Bytes of master weights, moments and gradients, which lie beside them for the update."""
        values = self.weights.num_values
        part, whole_parts = self.parts.part(values), self._whole_parts()
        match self.memory.offload_optimizer:
            case "none":
                return 0
            case "nvme":
                return BUFFERS["offload_optimizer"] * FP32_BYTES * self._swapped() + FP32_BYTES * whole_parts
        held = FP32_BYTES * part + moment_bytes(self.weights, self.optimizer, self.parts) + FP32_BYTES * part
        if self.zero_stage == 3:
            return held + FP32_BYTES * whole_parts
        # Rounded weights on their way back, and a gradient on its way here.
        held += self.value_bytes * (part + max(self.weights.sizes))
        if self.zero_stage == 2 and self.accumulates and self.value_bytes == FP32_BYTES:
            held += FP32_BYTES * self._touched()  # gradients of the micro batches so far
        return held

    def _of_weights(self) -> int:
        match self.memory.offload_parameters:
            case "none":
                return 0
            case "nvme":  # and a buffer with room for all ranks' parts of a sub-group, through which updated ones go
                largest = -(-max(self.weights.sizes) // self.parts.copies)
                return self.value_bytes * (BUFFERS["offload_param"] * largest + self._swapped() * self.parts.copies)
        return self.value_bytes * self._whole_parts()

    def _whole_parts(self) -> int:
        """Values of a rank's part of each weight under ZeRO-3."""
        return sum(-(-size // self.parts.copies) for size in self.weights.sizes)

    def _swapped(self) -> int:
        """Values of the largest sub-group: it ends with the weight that fills it."""
        largest = -(-max(self.weights.sizes) // self.parts.copies)
        return min(self._whole_parts(), self.swapped_values + largest)

    def _touched(self) -> int:
        """Values of all weights of which a rank has a part: gradients of these are kept whole."""
        matrices = [one.values for one in self.weights.matrices]
        return _most_touched(matrices, self.parts.copies) + _most_touched(self.weights.vectors, self.parts.copies)


def _most_touched(sizes: Sequence[int], copies: int) -> int:
    """Return the most values that lie in tensors which one of so many equal parts of them all reaches into."""
    part, most = -(-sum(sizes) // copies), 0
    for rank in range(copies):
        begin, touched = 0, 0
        for size in sizes:
            touched += size if begin < (rank + 1) * part and begin + size > rank * part else 0
            begin += size
        most = max(most, touched)
    return most
