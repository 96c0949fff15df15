"""Bytes of a checkpoint, from the config alone; no torch."""

from gptdist.config.activations import FP32_BYTES
from gptdist.config.run import RunConfig
from gptdist.model.arithmetic import num_parameters
from gptdist.model.optimizer_memory import BF16_BYTES

_MOMENTS = {"adamw": 2, "lion": 1, "muon": 2, "adafactor": 0}
"""Values that an optimizer keeps of a weight. Muon keeps one of a hidden matrix's, two of all others: this is the most;
adafactor's means of rows and columns are too few to count."""


def checkpoint_bytes(config: RunConfig) -> int:
    """Return the bytes of a checkpoint's tensors: weights in fp32, and the optimizer's moments."""
    moment = BF16_BYTES if config.optimizer.moment_precision == "bf16" else FP32_BYTES
    return num_parameters(config.model) * (FP32_BYTES + _MOMENTS[config.optimizer.kind] * moment)
