"""Bytes of an optimizer's moments on one rank, and of what it needs for an update alone; no torch."""

from dataclasses import dataclass

from gptdist.config.activations import FP32_BYTES
from gptdist.config.optimization import OptimizerConfig
from gptdist.mesh.layout import Layout
from gptdist.model.rank_weights import Matrix, RankWeights

BF16_BYTES = 2


@dataclass(frozen=True)
class ZeroParts:
    """How ZeRO cuts a rank's weights over the ranks that hold the same ones."""

    copies: int
    """Ranks that hold the same weights."""

    expert_copies: int
    """Ranks that hold the same experts."""

    is_cut: bool
    """Whether ZeRO cuts at all: from stage 1 on."""

    @classmethod
    def of(cls, layout: Layout, zero_stage: int) -> "ZeroParts":
        """Return those of ``layout``."""
        return cls(layout.num_copies, max(1, layout.num_copies // layout.expert_parallel_size), zero_stage > 0)

    def part(self, values: int, expert_values: int = 0) -> int:
        """Return this rank's values of ``values``, of which ``expert_values`` are split experts'."""
        return -(-(values - expert_values) // self.copies) + -(-expert_values // self.expert_copies)

    def held(self, values: int, expert_values: int = 0) -> int:
        """Return the values whose moments this rank keeps."""
        return self.part(values, expert_values) if self.is_cut else values


def moment_bytes(weights: RankWeights, optimizer: OptimizerConfig, parts: ZeroParts) -> int:
    """Return bytes of the moments that stay on a rank."""
    values, expert_values = weights.num_values, weights.num_expert_values
    match optimizer.kind:
        case "adafactor":
            # Mean squares of rows and columns are whole on every rank, with a byte that says what map a row belongs to.
            means = sum(
                FP32_BYTES * one.stacks * (one.rows + one.maps * one.columns) + one.maps * one.rows
                for one in weights.matrices
            )
            return means + FP32_BYTES * -(-sum(weights.vectors) // parts.copies)
        case "muon":
            hidden = sum(one.values for one in weights.hidden_matrices)
            return FP32_BYTES * (parts.held(hidden) + 2 * parts.held(values - hidden))
        case kind:
            moments = 2 if kind == "adamw" else 1
            size = BF16_BYTES if optimizer.moment_precision == "bf16" else FP32_BYTES
            return moments * size * parts.held(values, expert_values)


def muon_update_bytes(weights: RankWeights, parts: ZeroParts, *, on_gpu: bool) -> int:
    """Return bytes that muon needs to make updates orthogonal: of all hidden matrices one value, and whole matrices.

    A wave of as many matrices as there are copies is put together at once; each rank works on one of them.
    """
    hidden = weights.hidden_matrices
    if not hidden:
        return 0
    wave = sorted((one.values for one in hidden), reverse=True)[: parts.copies if parts.is_cut else 1]
    directions = parts.held(sum(one.values for one in hidden))
    return FP32_BYTES * (directions + sum(wave)) + max(_orthogonal_bytes(one, on_gpu=on_gpu) for one in hidden)


def _orthogonal_bytes(one: Matrix, *, on_gpu: bool) -> int:
    """Return bytes of the whole matrix, and of the iteration on its largest map, in bf16 on a GPU."""
    work = BF16_BYTES if on_gpu else FP32_BYTES
    rows = one.map_rows or one.rows
    values, gram = one.stacks * rows * one.columns, one.stacks * min(rows, one.columns) ** 2
    iteration = max(2 * values + 4 * gram, 4 * values + 2 * gram)
    return FP32_BYTES * one.stacks * one.rows * one.columns + work * iteration
