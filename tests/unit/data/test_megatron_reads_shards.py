"""megatron-core's own reader and writer agree with ours, byte for byte."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from gptdist.data.shards import TokenShard, token_dtype
from tests.unit.data.made_shards import write_shard

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from megatron.core.datasets.gpt_dataset import GPTDataset
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder
    from megatron.core.datasets.utils import Split

    from tests.support.megatron_data import gpt_dataset_config


def make_documents(vocab_size: int) -> list[list[int]]:
    random = np.random.default_rng(3)
    return [random.integers(0, vocab_size, size=length).tolist() for length in (1, 7, 300, 2, 64)]


@pytest.mark.parametrize("vocab_size", [257, 65_499, 65_500, 65_535, 65_536])
def test_files_are_those_of_the_builder(vocab_size: int, tmp_path: Path) -> None:
    """Between 65,500 and 65,535 the builder's default dtype differs; the code in the header is what readers follow."""
    documents, dtype = make_documents(vocab_size), token_dtype(vocab_size)
    write_shard(tmp_path, "ours", documents, dtype.name)
    builder = IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=dtype.type)
    for document in documents:
        builder.add_item(torch.tensor(document))
        builder.end_document()
    builder.finalize(str(tmp_path / "theirs.idx"))
    for ending in ("bin", "idx"):
        assert (tmp_path / f"ours.{ending}").read_bytes() == (tmp_path / f"theirs.{ending}").read_bytes()


@pytest.mark.parametrize("vocab_size", [257, 65_535, 65_536])
def test_megatron_reads_what_we_wrote(vocab_size: int, tmp_path: Path) -> None:
    documents = make_documents(vocab_size)
    write_shard(tmp_path, "a", documents, token_dtype(vocab_size).name)
    dataset = IndexedDataset(str(tmp_path / "a"))
    assert [dataset[i].tolist() for i in range(len(dataset))] == documents
    assert dataset.document_indices.tolist() == list(range(len(documents) + 1))


def test_we_read_what_megatron_wrote(tmp_path: Path) -> None:
    documents = make_documents(1000)
    builder = IndexedDatasetBuilder(str(tmp_path / "a.bin"), dtype=np.int32)
    for document in documents:
        builder.add_document(torch.tensor(document), [len(document)])
    builder.finalize(str(tmp_path / "a.idx"))
    shard = TokenShard(tmp_path / "a")
    assert shard.read(0, shard.num_tokens).tolist() == [token for document in documents for token in document]


def gpt_dataset(stem: Path, cache: Path, seq_length: int) -> GPTDataset:
    """Return one epoch of a shard."""
    config = gpt_dataset_config([stem], cache, seq_length)
    indexed = GPTDataset.build_low_level_dataset(str(stem), config)
    numbers = np.arange(len(indexed), dtype=np.int32)
    return GPTDataset(indexed, str(stem), numbers, None, Split.train, config)


@pytest.mark.parametrize("dtype", ["uint16", "int32"])
def test_gpt_dataset_trains_on_what_we_wrote(dtype: str, tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    documents = [[*random.integers(0, 256, size=size).tolist(), 256] for size in (30, 5, 64, 1, 120, 12, 47)]
    write_shard(tmp_path, "a", documents, dtype)
    dataset = gpt_dataset(tmp_path / "a", tmp_path / "cache", 16)
    order = dataset.document_index.tolist()
    assert sorted(order) == list(range(len(documents)))
    stream = [token for number in order for token in documents[number]]
    windows = [stream[begin : begin + 17] for begin in range(0, len(stream) - 16, 16)]
    assert len(dataset) == len(windows)
    for sample, window in enumerate(dataset.shuffle_index.tolist()):
        assert dataset[sample]["tokens"].tolist() == windows[window][:-1]
        assert dataset[sample]["labels"].tolist() == windows[window][1:]


def test_both_read_packed_pieces(tmp_path: Path) -> None:
    """A document that packing cut is two sequences: the first has no end, and padding lies behind the last."""
    pieces = [[1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 256, 256, 256, 256, 256, 256], [11, 12, 13, 256], [14, 256, 256, 256]]
    write_shard(tmp_path, "a", pieces)
    dataset = IndexedDataset(str(tmp_path / "a"))
    assert [dataset[i].tolist() for i in range(len(dataset))] == pieces
    assert len(gpt_dataset(tmp_path / "a", tmp_path / "cache", 4)) == (24 - 1) // 4
