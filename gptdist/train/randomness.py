"""Dropout as a pure function of which samples are at work.

Before every micro batch the random generators are seeded from the run's seed and the number of its first sample. So a
checkpoint needs no generator state, a resumed run draws what the uninterrupted one would have drawn, and the masks do
not depend on how many replicas share the work.
"""

import torch
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker

from gptdist.model.parameters import derived_seed

TRACKER_NAME = "model-parallel-rng"
"""The generator that megatron-core forks to where tensor-parallel ranks must draw differently."""


def seed_micro_batch(seed: int, first_sample: int, tp_rank: int) -> None:
    """Seed what draws the same on all tensor-parallel ranks, and what draws differently."""
    torch.manual_seed(derived_seed(seed, "dropout", first_sample))
    tracker = get_cuda_rng_tracker()
    tracker.reset()
    tracker.add(TRACKER_NAME, derived_seed(seed, "dropout", first_sample, "tensor", tp_rank))
