"""The loss as a mean over the tokens that count, exact for every split of a batch."""

import numpy as np
import torch
import torch.distributed as dist

from gptdist.data.rules import LossMask
from gptdist.errors import TrainingError
from gptdist.train.run import Run


def mean_factor(run: Run) -> float:
    """Return what each micro batch's loss of the next step is multiplied by: all its tokens / those that count.

    A micro batch's loss is a sum over the labels that count / all of its labels. Means of means would weigh tokens by
    their micro batch; multiplied by this, the mean over micro batches and replicas is the mean over counted tokens.

    Collective: every rank calls it. Communication: where there is a mask, one number over the data group.

    Raises:
        TrainingError: nothing of the step counts, on every rank.
    """
    mask, config, mesh = run.rules.loss_mask, run.config, run.mesh
    if mask is None and not run.data.has_masks:
        return 1.0
    mask = mask or LossMask()
    counted = sum(
        mask.num_counted(np.stack(run.data.rows(run.first_sample(micro_batch), config.batch.micro_batch_size)))
        for micro_batch in range(run.num_micro_batches)
    )
    if mesh.layout.data_parallel_size > 1:
        total = torch.tensor(counted, dtype=torch.int64, device=run.device.torch_device)
        dist.all_reduce(total, group=mesh.data_group)
        counted = int(total.item())
    if not counted:
        raise TrainingError(
            f"step {run.state.step + 1}: by data.loss_mask no token counts of samples {run.state.consumed_samples} to "
            f"{run.state.consumed_samples + run.step_samples - 1}; mask less, or raise batch.global_batch_size"
        )
    return run.step_samples * config.model.seq_length / counted
