"""A run's data is checked before any rank starts."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from gptdist.data.batches import Batch
from gptdist.data.sources import TrainingData, check_data, check_tokenizer, validation_sources
from gptdist.errors import ConfigError, DataError
from gptdist.tokenizer.training import train_bpe
from tests.support.datasets import GPT2, make_documents, make_run_config, write_dataset


def test_rows_are_the_tokens_that_the_order_says(tmp_path: Path) -> None:
    config = make_run_config(tmp_path)
    data = TrainingData(config)
    for sample in range(50):
        address = data.order.address(sample)
        whole = data.datasets[address.source].read(0, data.datasets[address.source].num_tokens)
        row = data.rows(sample, 1)[0]
        assert np.array_equal(row, whole[address.first_token : address.first_token + 33])


def test_labels_are_the_next_tokens(tmp_path: Path) -> None:
    import torch

    rows = TrainingData(make_run_config(tmp_path)).rows(0, 3)
    batch = Batch.of(rows, torch.device("cpu"))
    assert batch.tokens.shape == batch.labels.shape == (3, 32)
    assert torch.equal(batch.tokens[:, 1:], batch.labels[:, :-1])
    assert batch.positions()[2].tolist() == list(range(32))


def test_missing_folders(tmp_path: Path) -> None:
    config = make_run_config(tmp_path)
    shutil.rmtree(tmp_path / "data" / "code")
    with pytest.raises(ConfigError, match=r"data.sources\[1\].path: folder '.*code' does not exist; prepare it"):
        check_data(config)


def test_another_tokenizer(tmp_path: Path) -> None:
    config = make_run_config(tmp_path)
    shutil.rmtree(tmp_path / "data" / "tokenizer")
    (tmp_path / "data" / "tokenizer").mkdir()
    train_bpe(make_documents(50, 0), vocab_size=300).save(tmp_path / "data" / "tokenizer")
    config = make_run_config(tmp_path, model=GPT2 | {"vocab_size": 400})
    with pytest.raises(DataError, match=r"prose: made with tokenizer \w{12}, but data.tokenizer .* is \w{12}; name"):
        check_tokenizer(config)


def test_vocabulary_larger_than_the_model(tmp_path: Path) -> None:
    config = make_run_config(tmp_path, model=GPT2 | {"vocab_size": 256})
    with pytest.raises(DataError, match=r"model.vocab_size: 256 is smaller than .* \(257\); set it to at least 257"):
        check_data(config)


def test_damaged_shard(tmp_path: Path) -> None:
    config = make_run_config(tmp_path)
    path = tmp_path / "data" / "prose" / "train-00001.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match=r"train-00001.bin"):
        check_data(config)


def test_validation_split_shorter_than_a_sample(tmp_path: Path) -> None:
    config = make_run_config(tmp_path, model=GPT2 | {"seq_length": 100_000})
    with pytest.raises(DataError, match=r"validation split has .* tokens, less than one sample of 100000"):
        validation_sources(config)


def test_same_content_same_fingerprint(tmp_path: Path) -> None:
    first = TrainingData(make_run_config(tmp_path)).fingerprints()
    shutil.rmtree(tmp_path / "data" / "prose")
    write_dataset(tmp_path / "data" / "prose", seed=0)
    assert TrainingData(make_run_config(tmp_path)).fingerprints() == first
    shutil.rmtree(tmp_path / "data" / "prose")
    write_dataset(tmp_path / "data" / "prose", seed=5)
    second = TrainingData(make_run_config(tmp_path)).fingerprints()
    assert second["prose"] != first["prose"]
    assert second["code"] == first["code"]
