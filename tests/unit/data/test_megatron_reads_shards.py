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
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder


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
