"""Dropout as a pure function of which samples are at work.

Before every micro batch the random generators are seeded from the run's seed and the number of its first sample. So a
checkpoint needs no generator state, a resumed run draws what the uninterrupted one would have drawn, and the masks do
not depend on how many replicas share the work. Context-parallel ranks have other tokens of the same samples, and must
draw differently.
"""

from typing import Any

import torch
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker

from gptdist.mesh.layout import Place
from gptdist.model.gpt import LanguageModel
from gptdist.model.parameters import derived_seed

TRACKER_NAME = "model-parallel-rng"
"""The generator that megatron-core forks to where tensor-parallel ranks must draw differently."""


def forbid_nondeterminism() -> None:
    """Let torch use only algorithms that give the same bits every time; for this process, once and for all.

    cuBLAS needs CUBLAS_WORKSPACE_CONFIG for it, which the launch sets.
    """
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def seed_micro_batch(seed: int, first_sample: int, place: Place, first_layer: int = 0) -> None:
    """Seed what draws the same on all tensor-parallel ranks, and what draws differently.

    ``first_layer`` is the number of layers before this rank's stage: each adds 1 to the seeds.
    """
    cp_rank = (place.cp_rank,) if place.cp_rank else ()
    torch.manual_seed(derived_seed(seed, "dropout", first_sample, *cp_rank) + first_layer)
    tracker = get_cuda_rng_tracker()
    tracker.reset()
    own = derived_seed(seed, "dropout", first_sample, "tensor", place.tp_rank, *cp_rank)
    tracker.add(TRACKER_NAME, own + first_layer)


def seed_layers(model: LanguageModel) -> None:
    """Have each layer draw from a seed of its own, so that masks do not depend on the stage that holds it.

    It is the seed of the layer before plus 1, read from the generator: a layer that is computed again finds the
    generator as it was, and draws the same. The tracker's generator is treated alike; under sequence parallelism all
    of a layer draws from that one.
    """

    def seed(*_: Any) -> None:
        torch.cuda.manual_seed(torch.cuda.initial_seed() + 1)
        if not model.config.sequence_parallel:
            with get_cuda_rng_tracker().fork():
                torch.cuda.manual_seed(torch.cuda.initial_seed() + 1)

    for layer in model.decoder.layers:
        layer.register_forward_pre_hook(seed)
