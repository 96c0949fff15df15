"""Documents of one sample that know nothing of each other."""

from functools import partial

import numpy as np
import pytest
import torch

from gptdist.data.batches import Batch
from gptdist.data.rules import SampleRules
from tests.unit.compress.small_models import TrainedModel, llama, megatron_model, trained

END = 256
FIRST, SECOND, LAST = [5, 6, 7, 8, 9, END], [1, 2, 3, 4, END], [7, 7, 1, 2, 9]


def batch_of(*samples: list[int], document_end: int | None = END) -> Batch:
    return Batch.of([np.array([*sample, 0]) for sample in samples], torch.device("cpu"), SampleRules(document_end))


def test_positions_begin_anew_behind_each_end() -> None:
    batch = batch_of([*FIRST, *SECOND, *LAST], [END, END, *LAST, *LAST, 1, 2, 3, END])
    assert batch.positions().tolist() == [
        [*range(6), *range(5), *range(5)],
        [0, 0, *range(14)],
    ]
    mask = batch.attention_mask()
    assert mask is not None
    assert mask.shape == (2, 1, 16, 16)
    assert mask[0, 0].sum(dim=1).tolist() == [*range(1, 7), *range(1, 6), *range(1, 6)]
    assert mask[0, 0, 7].nonzero().flatten().tolist() == [6, 7]


def test_a_sample_is_one_text_by_default() -> None:
    batch = batch_of([*FIRST, *SECOND], document_end=None)
    assert batch.positions().tolist() == [list(range(11))]
    assert batch.attention_mask() is None


@pytest.mark.parametrize(
    "make",
    [
        trained,
        llama,
        partial(llama, qk_norm=True, local_attention_window=3),
        partial(trained, local_attention_window=4),
    ],
)
def test_a_document_is_read_as_if_it_were_alone(make: partial[TrainedModel]) -> None:
    with megatron_model(make()) as (model, _), torch.inference_mode():

        def logits(batch: Batch) -> torch.Tensor:
            return model(batch.tokens, batch.positions(), batch.attention_mask())

        packed = logits(batch_of([*FIRST, *SECOND, *LAST]))[0]
        together = logits(batch_of([*FIRST, *SECOND, *LAST], document_end=None))[0]
        for begin, document in ((0, FIRST), (6, SECOND), (11, LAST)):
            alone = logits(batch_of(document, document_end=None))[0]
            torch.testing.assert_close(packed[begin : begin + len(document)], alone, rtol=0, atol=2e-5)
        assert (together[6:] - packed[6:]).abs().max() > 0.01, "nothing was kept apart"
