"""Dropout as a pure function of which samples are at work.

Before every micro batch the random generators are seeded from the run's seed and the number of its first sample. So a
checkpoint needs no generator state, a resumed run draws what the uninterrupted one would have drawn, and the masks do
not depend on how many replicas share the work. Context-parallel ranks have other tokens of the same samples, and must
draw differently.
"""

import torch
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker

from gptdist.mesh.layout import Place
from gptdist.model.parameters import derived_seed

TRACKER_NAME = "model-parallel-rng"
"""The generator that megatron-core forks to where tensor-parallel ranks must draw differently."""


def forbid_nondeterminism() -> None:
    """Let torch use only algorithms that give the same bits every time; for this process, once and for all.

    cuBLAS needs CUBLAS_WORKSPACE_CONFIG for it, which the launch sets.
    """
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def seed_micro_batch(seed: int, first_sample: int, place: Place) -> None:
    """Seed what draws the same on all tensor-parallel ranks, and what draws differently."""
    cp_rank = (place.cp_rank,) if place.cp_rank else ()
    torch.manual_seed(derived_seed(seed, "dropout", first_sample, *cp_rank))
    tracker = get_cuda_rng_tracker()
    tracker.reset()
    tracker.add(TRACKER_NAME, derived_seed(seed, "dropout", first_sample, "tensor", place.tp_rank, *cp_rank))
