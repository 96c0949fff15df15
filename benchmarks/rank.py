"""What each rank of a benchmark does first."""

import os
import warnings


def begin_rank() -> None:
    """Prepare the libraries and meet the other ranks, as ``Contender`` told where. Collective: every rank calls it."""
    warnings.filterwarnings("ignore")
    import torch.distributed as dist

    from gptdist.device import megatron_on_cpu
    from gptdist.device.device import prepare_deepspeed

    prepare_deepspeed()
    megatron_on_cpu.install()
    dist.init_process_group(
        "gloo",
        init_method=os.environ["BENCHMARK_STORE"],
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )
