"""A run's data is checked before any rank starts."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gptdist.data.batches import Batch
from gptdist.data.sources import (
    TrainingData,
    check_data,
    check_tokenizer,
    sample_order,
    training_tokens,
    validation_sources,
)
from gptdist.errors import ConfigError, DataError
from gptdist.tokenizer.training import train_bpe
from tests.support.datasets import GPT2, make_documents, make_run_config, write_dataset
from tests.unit.data.made_shards import EOD
from tests.unit.data.made_shards import write_dataset as write_known_dataset


def test_rows_are_the_tokens_that_the_order_says(tmp_path: Path) -> None:
    config = make_run_config(tmp_path)
    data = TrainingData(config)
    for sample in range(50):
        address = data.order.address(sample)
        whole = data.datasets[address.source].read(0, data.datasets[address.source].num_tokens)
        row = data.rows(sample, 1)[0]
        assert np.array_equal(row, whole[address.first_token : address.first_token + 33])


def test_shares_follow_sizes_where_a_temperature_is_set(tmp_path: Path) -> None:
    sources = [{"path": str(tmp_path / "data" / name)} for name in ("prose", "code")]
    write_dataset(tmp_path / "data" / "prose", documents=900)
    config = make_run_config(tmp_path, data={"sources": sources, "temperature": 2.0})
    data = TrainingData(config)
    prose, code = (dataset.num_tokens for dataset in data.datasets)
    assert prose > 2.5 * code
    assert data.order.tokens == tuple(training_tokens(config)) == (prose, code)
    expected = prose**0.5 / (prose**0.5 + code**0.5)
    assert data.order.mixture.shares_at(0)[0] == pytest.approx(expected, abs=1e-4)
    assert [source.weight for source in validation_sources(config)] == pytest.approx([expected, 1 - expected])


def test_without_a_temperature_unset_weights_are_equal(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data" / "prose", documents=900)
    sources = [{"path": str(tmp_path / "data" / "prose")}, {"path": str(tmp_path / "data" / "code"), "weight": 3}]
    config = make_run_config(tmp_path, data={"sources": sources})
    assert TrainingData(config).order.mixture.shares_at(0) == (0.25, 0.75)
    assert [source.weight for source in validation_sources(config)] == [0.25, 0.75]


def test_the_order_from_manifests_alone_is_that_of_the_opened_data(tmp_path: Path) -> None:
    config = make_run_config(tmp_path)
    order, data = sample_order(config, training_tokens(config)), TrainingData(config)
    assert [order.address(i) for i in range(100)] == [data.order.address(i) for i in range(100)]


def test_a_folder_without_a_training_split(tmp_path: Path) -> None:
    config = make_run_config(tmp_path)
    path = tmp_path / "data" / "code" / "manifest.json"
    tree = json.loads(path.read_text())
    del tree["splits"]["train"]
    path.write_text(json.dumps(tree))
    with pytest.raises(DataError, match=r"code: has no split 'train', only validation; prepare more documents"):
        training_tokens(config)


def test_data_packed_for_another_length_is_refused(tmp_path: Path) -> None:
    manifest = write_known_dataset(tmp_path / "packed", [[[*range(8), EOD] + 7 * [EOD]] * 20])
    replace(manifest, packing={"method": "best_fit", "seq_length": 16}).write(tmp_path / "packed")
    sources = {"sources": [{"path": str(tmp_path / "packed")}]}
    fitting = make_run_config(tmp_path, data=sources, model=GPT2 | {"seq_length": 16})
    assert TrainingData(fitting).order.tokens == tuple(training_tokens(fitting)) == (320,)
    other = make_run_config(tmp_path, data=sources)
    for opened in (TrainingData, training_tokens):
        with pytest.raises(
            DataError,
            match=r"packed: packed for samples of 16 tokens, model.seq_length is 32: .*; set model.seq_length to 16",
        ):
            opened(other)


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


def test_named_sets_come_after_the_sources_and_have_no_share(tmp_path: Path) -> None:
    path = tmp_path / "data" / "prose"
    sets = [{"name": "few", "path": str(path), "samples": 2}, {"name": "seen", "path": str(path), "split": "train"}]
    found = validation_sources(make_run_config(tmp_path, data={"validation": sets}))
    assert [(one.name, one.weight) for one in found] == [("prose", 0.7), ("code", 0.3), ("few", 0.0), ("seen", 0.0)]
    prose, _, few, seen = found
    assert len(few.first_tokens) == 2
    assert len(seen.first_tokens) == len(prose.first_tokens) == 5, "as data.eval_samples says"
    assert seen.dataset.split == "train"
    assert not np.array_equal(seen.rows(1, 1)[0], prose.rows(1, 1)[0])


def test_a_named_set_of_another_tokenizer_or_packed_for_another_length_is_refused(tmp_path: Path) -> None:
    manifest = write_known_dataset(tmp_path / "packed", [[[*range(8), EOD] + 7 * [EOD]] * 20])
    config = make_run_config(
        tmp_path, data={"validation": [{"name": "b", "path": str(tmp_path / "packed"), "split": "train"}]}
    )
    with pytest.raises(DataError, match=r"packed: made with tokenizer .* name the tokenizer it was made with"):
        check_tokenizer(config)
    replace(manifest, packing={"method": "best_fit", "seq_length": 16}).write(tmp_path / "packed")
    with pytest.raises(DataError, match=r"packed: packed for samples of 16 tokens, model.seq_length is 32"):
        validation_sources(config)
