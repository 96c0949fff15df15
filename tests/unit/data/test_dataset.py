"""A split as one stream over its shards, joined with where documents came from."""

from pathlib import Path

import numpy as np
import pytest

from gptdist.data.dataset import TokenDataset
from gptdist.data.provenance import ProvenanceWriter, read_digests, read_provenance
from gptdist.errors import DataError
from tests.unit.data.made_shards import SHARDS, STREAM, write_dataset, write_shard


@pytest.fixture
def dataset(tmp_path: Path) -> TokenDataset:
    write_dataset(tmp_path / "words", SHARDS)
    return TokenDataset(tmp_path / "words", "train")


def test_every_range_is_that_of_the_stream(dataset: TokenDataset) -> None:
    assert (dataset.name, dataset.num_tokens) == ("words", len(STREAM))
    for start in range(len(STREAM) + 1):
        for count in range(len(STREAM) - start + 1):
            tokens = dataset.read(start, count)
            assert tokens.dtype == np.int64
            assert tokens.tolist() == STREAM[start : start + count]


def test_documents_of_every_range(dataset: TokenDataset) -> None:
    flat = [(s, d, ids) for s, shard in enumerate(SHARDS) for d, ids in enumerate(shard)]
    owner = [(s, d) for s, d, ids in flat for _ in ids]
    for start in range(len(STREAM)):
        for count in range(1, len(STREAM) - start + 1):
            spans = dataset.documents_in(start, count)
            wanted = list(dict.fromkeys(owner[start : start + count]))
            assert [(int(span.shard[-5:]), span.document) for span in spans] == wanted
            origins = read_provenance(dataset.folder, spans)
            assert [origin.path for origin in origins] == [f"{s}/{d}" for s, d in wanted]
            for span, origin in zip(spans, origins, strict=True):
                assert span.last_token - span.first_token + 1 == origin.tokens
                assert STREAM[span.last_token] == 9
    assert dataset.documents_in(3, 0) == []


def test_documents_by_number(dataset: TokenDataset) -> None:
    texts = [ids for shard in SHARDS for ids in shard]
    for number, ids in enumerate(texts):
        span = dataset.document(number)
        assert STREAM[span.first_token : span.last_token + 1] == ids
    for number in (-1, len(texts)):
        with pytest.raises(DataError, match=rf"document {number} of split 'train' asked for, it has 6; take one of 0"):
            dataset.document(number)


def test_ranges_outside_are_refused(dataset: TokenDataset) -> None:
    for start, count in ((0, len(STREAM) + 1), (-1, 1), (2, -1)):
        with pytest.raises(DataError, match="of split 'train' asked for, it has 16; ask for a range inside"):
            dataset.read(start, count)
        with pytest.raises(DataError, match="ask for a range inside"):
            dataset.documents_in(start, count)


def test_a_missing_split_is_named(tmp_path: Path) -> None:
    write_dataset(tmp_path, SHARDS)
    with pytest.raises(DataError, match="has no split 'validation', only train; prepare it with a validation_fraction"):
        TokenDataset(tmp_path, "validation")


def test_each_missing_file_is_named(tmp_path: Path) -> None:
    write_dataset(tmp_path, SHARDS)
    for ending in ("bin", "idx", "parquet"):
        path = tmp_path / f"train-00001.{ending}"
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(DataError, match=rf"train-00001\.{ending}: (missing|cannot be read)"):
            TokenDataset(tmp_path, "train")
        path.write_bytes(content)
    TokenDataset(tmp_path, "train")


def test_a_shard_of_another_dataset_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, SHARDS)
    write_shard(tmp_path, "train-00001", [[4, 5, 6, 9]])
    with pytest.raises(
        DataError, match=r"train-00001\.idx: uint16, 1 documents, 4 tokens, 8 bytes .* the manifest says"
    ):
        TokenDataset(tmp_path, "train")
    write_shard(tmp_path, "train-00001", [[4, 5, 6, 7, 9]], "int32")
    with pytest.raises(DataError, match=r"int32, 1 documents, 5 tokens, 20 bytes .* says uint16"):
        TokenDataset(tmp_path, "train")


def test_provenance_that_is_damaged_short_or_foreign(tmp_path: Path) -> None:
    write_dataset(tmp_path, SHARDS)
    dataset = TokenDataset(tmp_path, "train")
    spans = dataset.documents_in(0, 5)
    path = tmp_path / "train-00000.parquet"
    assert read_digests(tmp_path, "train-00000") == [f"{0:032x}", f"{1:032x}"]
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"train-00000\.parquet: cannot be read"):
        read_provenance(tmp_path, spans)
    ProvenanceWriter(tmp_path, "train-00000").close()
    with pytest.raises(DataError, match="0 rows, none for document 1"):
        read_provenance(tmp_path, spans)
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"path": ["a"]}), path)
    with pytest.raises(DataError, match="its columns are not those of a provenance file"):
        read_provenance(tmp_path, spans)


def test_provenance_over_many_row_groups(tmp_path: Path) -> None:
    documents = [[1, 9]] * 40_000
    write_dataset(tmp_path, [documents])
    spans = [TokenDataset(tmp_path, "train").document(number) for number in (39_999, 0, 20_000)]
    assert [origin.path for origin in read_provenance(tmp_path, spans)] == ["0/39999", "0/0", "0/20000"]
