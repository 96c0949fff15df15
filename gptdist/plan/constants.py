"""What theory leaves open of memory and time: few constants, each with a physical meaning, fitted on published runs.

``python -m benchmarks.plan_fit`` fits them anew. ``FITTED`` are those on all rows; docs/plan_accuracy.md shows how well
constants that were fitted without a source predict it.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from gptdist.config.source import read_tree
from gptdist.errors import ConfigError


@dataclass(frozen=True)
class Constants:
    """Constants of the calibration; fractions are of what a data sheet promises."""

    matmul_ampere: float
    """Fraction of peak FLOP/s that whole waves of tiles of a matrix product reach; V100 has it too."""

    matmul_hopper: float
    """Likewise, and of Blackwell and CDNA 3: there power limits the clock."""

    attention_ampere: float
    """Fraction of peak FLOP/s of fused attention on A100, of the causal half of the scores."""

    attention_flash2: float
    """Likewise on Hopper, of kernels that were written for A100."""

    attention_cudnn: float
    """Likewise on Hopper and later, of kernels written for them."""

    attention_unfused: float
    """Fraction of peak FLOP/s of the two batched products of attention without a fused kernel, of all scores."""

    unaligned_heads: float
    """What is left of that where a head's size is no multiple of 8, which the matrix units ask for."""

    elementwise_bytes: float
    """Bytes that norms, activations, biases, dropout and residuals move for one value in one pass of a layer."""

    score_bytes: float
    """Bytes that softmax, mask and dropout move for one score in one pass, without a fused kernel."""

    fp8_cast_bytes: float
    """Bytes that scaling and casting to fp8 move for one value in one pass of a layer."""

    link_fraction: float
    """Fraction of a node's links that a collective reaches."""

    network_fraction: float
    """Likewise between nodes."""

    eager_gathers: float
    """What was left of that in DeepSpeed's ZeRO-3 of 2021, which gathered each weight by itself."""

    gradient_exposure: float
    """Part of the traffic of weights and gradients that overlaps with nothing, where the software overlaps it."""

    overlapped: float
    """Part of tensor-parallel traffic that hides behind matrix products, where the software overlaps it."""

    launch_seconds: float
    """What one pass of a layer takes beyond its work: kernels that are launched, and their tails."""

    optimizer_bytes: float
    """Bytes that an update moves for one parameter."""

    transfer_exposure: float
    """Part of the traffic between pipeline stages that nothing hides."""

    framework_bytes: float
    """Memory of a GPU that no tensor explains: driver, kernels, libraries."""

    communicator_bytes: float
    """Likewise of each communicator: one an axis that is split, and one of all ranks."""

    matmul_cpu: float = 0.85
    """As matmul_ampere; a CPU's peak is measured, so this is what is lost beside other work."""

    attention_cpu: float = 0.3
    """Fraction of peak FLOP/s of attention on a CPU."""

    process_bytes: float = 0.45 * 2**30
    """Main memory of a rank on a CPU that no tensor explains: interpreter, libraries, files that were read."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return ``FITTED`` with what a YAML file replaces.

        Raises:
            ConfigError: it has unknown keys, or values that are no numbers above 0.
        """
        tree, known = read_tree(path), {field.name for field in fields(cls)}
        bad = [
            f"{path}: {name}: no such constant; known are {', '.join(sorted(known))}" for name in tree.keys() - known
        ]
        bad += [
            f"{path}: {name}: must be a number above 0, got {value!r}"
            for name, value in tree.items()
            if name in known and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0)
        ]
        if bad:
            raise ConfigError(sorted(bad))
        return cls(**(asdict(FITTED) | {name: float(value) for name, value in tree.items()}))

    def tree(self) -> dict[str, Any]:
        """Return them as plain data."""
        return asdict(self)


PRIOR = Constants(
    matmul_ampere=0.78,
    matmul_hopper=0.70,
    attention_ampere=0.40,
    attention_flash2=0.20,
    attention_cudnn=0.45,
    attention_unfused=0.25,
    unaligned_heads=0.12,
    elementwise_bytes=12.5,
    score_bytes=5.0,
    fp8_cast_bytes=5.0,
    link_fraction=0.6,
    network_fraction=0.6,
    eager_gathers=0.1,
    gradient_exposure=0.3,
    overlapped=0.5,
    launch_seconds=200e-6,
    optimizer_bytes=30.0,
    transfer_exposure=0.5,
    framework_bytes=1.2 * 2**30,
    communicator_bytes=0.5 * 2**30,
)
"""Guesses before the fit, to which a constant falls back of which the rows say nothing. Those of elementwise_bytes and
launch_seconds were made after a first look at the residuals; the others before."""

FITTED = Constants(
    matmul_ampere=0.7544,
    matmul_hopper=0.6519,
    attention_ampere=0.3287,
    attention_flash2=0.179,
    attention_cudnn=0.4949,
    attention_unfused=0.2176,
    unaligned_heads=0.1103,
    elementwise_bytes=10.66,
    score_bytes=4.956,
    fp8_cast_bytes=4.949,
    link_fraction=0.5729,
    network_fraction=0.6445,
    eager_gathers=0.1348,
    gradient_exposure=0.3229,
    overlapped=0.4529,
    launch_seconds=0.0001938,
    optimizer_bytes=29.7,
    transfer_exposure=0.5454,
    framework_bytes=1_319_000_000.0,
    communicator_bytes=1_360_000_000.0,
)
"""Those on all published rows, as ``python -m benchmarks.plan_fit`` prints them."""

TIME_CONSTANTS = tuple(
    field.name
    for field in fields(Constants)
    if field.name not in ("framework_bytes", "communicator_bytes", "matmul_cpu", "attention_cpu", "process_bytes")
)
"""Which of them time depends on, and published rows can tell."""

MEMORY_CONSTANTS = ("framework_bytes", "communicator_bytes")
"""Likewise of memory."""

MEMORY_BAND = 0.12
"""Nine of ten predictions of memory are within this fraction of what was measured, in tables not fitted on."""

TIME_BAND = 0.20
"""Likewise of time, of sources not fitted on."""
