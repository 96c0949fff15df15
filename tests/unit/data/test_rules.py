"""Which labels count in the loss."""

import numpy as np
import pytest

from gptdist.config.loss_mask import LossMaskConfig
from gptdist.data.rules import LossMask
from gptdist.errors import DataError
from gptdist.tokenizer.byte import ByteTokenizer

END = 256
ROWS = np.array([[1, 2, END, 3, 4], [END, 5, 2, 2, END]], dtype=np.uint16)


def mask_of(**keys) -> LossMask | None:
    return LossMask.of(LossMaskConfig.from_tree(keys), ByteTokenizer())


def test_ids_and_special_tokens_do_not_count() -> None:
    mask = mask_of(ignore_tokens=[2, "<|endoftext|>"])
    assert mask is not None
    assert mask.labels(ROWS).tolist() == [[-1, -1, 3, 4], [5, -1, -1, -1]]
    assert mask.num_counted(ROWS) == 3


def test_the_first_token_of_a_document_does_not_count() -> None:
    mask = mask_of(ignore_document_starts=True)
    assert mask is not None
    assert mask.labels(ROWS).tolist() == [[2, END, -1, 4], [-1, 2, 2, END]]


def test_no_mask_is_none_at_all() -> None:
    assert mask_of() is None


def test_unknown_special_token_is_refused() -> None:
    with pytest.raises(DataError, match=r"no special token '<pad>'; it has <\|endoftext\|>"):
        mask_of(ignore_tokens=["<pad>"])


def test_ids_outside_the_vocabulary_and_repetitions_are_refused() -> None:
    config = LossMaskConfig.from_tree({"ignore_tokens": [300, -1, 7, 7]})
    assert config.problems(257) == [
        "data.loss_mask.ignore_tokens: ids are from 0 to model.vocab_size - 1 (256), got 300",
        "data.loss_mask.ignore_tokens: ids are from 0 to model.vocab_size - 1 (256), got -1",
        "data.loss_mask.ignore_tokens: '7' is listed twice; remove one",
    ]
