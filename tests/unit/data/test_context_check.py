"""Where documents are apart, one of them has to fill half of the context."""

from pathlib import Path

import pytest

from gptdist.data.sources import TrainingData
from gptdist.errors import DataError
from tests.support.datasets import GPT2, make_run_config


def _open(folder: Path, seq_length: int, *, apart: bool = True) -> TrainingData:
    model = GPT2 | {"seq_length": seq_length}
    return TrainingData(make_run_config(folder, model=model, data={"separate_documents": apart}))


def test_half_of_the_context_is_the_limit(tmp_path: Path) -> None:
    data = _open(tmp_path, 32)
    longest = max(int(shard.lengths.max()) for dataset in data.datasets for shard in dataset.shards)
    _open(tmp_path, 2 * longest)
    with pytest.raises(
        DataError, match=rf"^model.seq_length: {2 * longest + 1}, but .* has {longest} tokens: more tha"
    ):
        _open(tmp_path, 2 * longest + 1)
    _open(tmp_path, 2 * longest + 1, apart=False)
