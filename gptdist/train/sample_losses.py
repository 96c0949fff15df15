"""What the model makes of each sample of a step, so that people see which of them is to blame for a spike.

Nothing of the training is touched: dropout is off, no gradient is computed, and random generators, which a forward
pass may seed, are seeded anew before each micro batch of the next step.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from gptdist.data.batches import Batch, cut_rows
from gptdist.train.run import Run


def sample_losses(run: Run, first_sample: int, count: int) -> list[float | None]:
    """Return the loss of each sample, nats a label that counts; None where none counts. Collective: every rank calls.

    Replicas share the work as they do in a step, a sample at a time; ``count`` is the size of a step.

    Communication: an all-reduce of two numbers a sample over the ranks with the same weights, and over the pipeline.
    """
    mesh, config = run.mesh, run.config
    stage, seq_length = run.engine.stage, config.seq_lengths.at(first_sample)
    replicas, size = mesh.layout.data_parallel_size, config.batch.micro_batch_size
    totals = torch.zeros(2, count, dtype=torch.float64)
    was_training = stage.training
    stage.eval()
    with torch.no_grad():
        for begin in range(mesh.place.dp_rank * size, count, replicas * size):
            for index in range(begin, begin + size):
                rows = cut_rows(run.data.rows(first_sample + index, 1), seq_length)
                batch = Batch.of(rows, run.device.torch_device, run.rules, mesh.context_part)
                loss = stage(batch.tokens, batch.positions(), batch.attention_mask(), labels=batch.labels)
                if stage.next is None:
                    counted = int((batch.labels >= 0).sum())
                    totals[:, index] = torch.tensor([loss.item() * batch.labels.numel(), counted], dtype=torch.float64)
    stage.train(was_training)
    nats, counted_labels = _summed(run, totals).tolist()
    return [nats[index] / labels if labels else None for index, labels in enumerate(counted_labels)]


def _summed(run: Run, totals: Tensor) -> Tensor:
    """Add up what replicas, context-parallel ranks and stages found; tensor-parallel ranks have found the same."""
    layout = run.mesh.layout
    groups: Sequence[tuple[int, dist.ProcessGroup]] = (
        (layout.num_copies, run.mesh.copies_group),
        (layout.pipeline_parallel_size, run.mesh.pipeline_group),
    )
    summed = totals.to(run.device.torch_device)
    for ranks, group in groups:
        if ranks > 1:
            dist.all_reduce(summed, group=group)
    return summed.cpu()
