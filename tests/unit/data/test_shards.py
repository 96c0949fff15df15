"""Shard files: written as megatron-core writes them, read back, refused when damaged."""

from pathlib import Path

import numpy as np
import pytest

from gptdist.data.shards import HEADER, MAGIC, ShardWriter, TokenShard, index_bytes, token_dtype
from gptdist.errors import DataError
from tests.unit.data.made_shards import write_shard

DOCUMENTS = [[1, 2, 3], [4], [5, 6], [7, 8, 9, 10]]


@pytest.mark.parametrize(("vocab_size", "dtype"), [(257, "uint16"), (65_535, "uint16"), (65_536, "int32")])
def test_dtype_follows_the_vocabulary(vocab_size: int, dtype: str, tmp_path: Path) -> None:
    assert token_dtype(vocab_size) == np.dtype(dtype)
    write_shard(tmp_path, "a", [[0, vocab_size - 1]], dtype)
    assert TokenShard(tmp_path / "a").read(0, 2).tolist() == [0, vocab_size - 1]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written = write_shard(tmp_path, "a", DOCUMENTS)
    shard = TokenShard(tmp_path / "a")
    assert (shard.num_tokens, shard.num_documents) == (written.tokens, written.documents) == (10, 4)
    assert shard.document_offsets.tolist() == [0, 3, 4, 6, 10]
    assert shard.read(2, 3).tolist() == [3, 4, 5]
    assert shard.last_tokens().tolist() == [3, 4, 6, 10]
    assert [shard.document_at(token) for token in range(10)] == [0, 0, 0, 1, 2, 2, 3, 3, 3, 3]
    assert shard.document_range(3) == (6, 10)


def test_batches_or_single_documents_give_the_same_files(tmp_path: Path) -> None:
    single = write_shard(tmp_path, "a", DOCUMENTS)
    with ShardWriter(tmp_path, "b", np.dtype(np.uint16)) as writer:
        writer.append(np.concatenate([np.array(ids) for ids in DOCUMENTS]), np.array([3, 1, 2, 4]))
        assert writer.close() == single


def test_what_is_read_outlives_the_reader(tmp_path: Path) -> None:
    write_shard(tmp_path, "a", DOCUMENTS)
    tokens = TokenShard(tmp_path / "a").read(0, 10)
    for path in tmp_path.iterdir():
        path.unlink()
    assert tokens.tolist() == list(range(1, 11))
    assert tokens.base is None


def test_nothing_has_its_name_before_close(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "a", np.dtype(np.uint16))
    writer.append(np.array([1]), np.array([1]))
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin.partial"]
    with pytest.raises(DataError, match=r"a\.idx: cannot be read"):
        TokenShard(tmp_path / "a")
    writer.discard()
    assert not list(tmp_path.iterdir())


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), ShardWriter(tmp_path, "a", np.dtype(np.uint16)):
        raise RuntimeError("stop")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [65_536, -1])
def test_ids_that_would_wrap_are_refused(wrong: int, tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "a", np.dtype(np.uint16))
    with pytest.raises(DataError, match=f"{wrong}.* do not fit uint16"):
        writer.append(np.array([5, wrong]), np.array([2]))


@pytest.mark.parametrize("lengths", [[1, 2], [2, 0]])
def test_lengths_have_to_fit_the_tokens(lengths: list[int], tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "a", np.dtype(np.uint16))
    with pytest.raises(DataError, match=r"document lengths add up to \d, there are 2 tokens, and none may be empty"):
        writer.append(np.array([1, 2]), np.array(lengths))


def test_a_range_outside_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path, "a", DOCUMENTS)
    shard = TokenShard(tmp_path / "a")
    for start, count in ((8, 3), (-1, 2), (0, -1)):
        with pytest.raises(DataError, match=r"asked for, it has 10; ask for a range inside"):
            shard.read(start, count)
    for document in (4, -1):
        with pytest.raises(DataError, match=rf"document {document} asked for, it has 4; take one of 0 … 3"):
            shard.document_range(document)


def test_a_cut_or_grown_bin_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path, "a", DOCUMENTS)
    content = (tmp_path / "a.bin").read_bytes()
    for changed in (content[:-1], content + b"\0", b""):
        (tmp_path / "a.bin").write_bytes(changed)
        with pytest.raises(DataError, match=rf"a\.bin: {len(changed)} bytes, its index says 20; prepare"):
            TokenShard(tmp_path / "a")
    (tmp_path / "a.bin").rename(tmp_path / "a.bin.partial")
    with pytest.raises(DataError, match=r"a\.bin: cannot be read .* \(only its \.partial is there\)"):
        TokenShard(tmp_path / "a")


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path, "a", DOCUMENTS)
    path = tmp_path / "a.idx"
    content = path.read_bytes()
    assert len(content) == index_bytes(4)
    damages = [
        (content[:20], "20 bytes, too short for a header"),
        (content[:-8], rf"{len(content) - 8} bytes, its index says {len(content)}"),
        (b"X" + content[1:], "is no token index"),
        (HEADER.pack(MAGIC, 2, 8, 4, 5) + content[HEADER.size :], "version 2, dtype code 8 is no token index"),
        (HEADER.pack(MAGIC, 1, 7, 4, 5) + content[HEADER.size :], "dtype code 7 is no token index"),
        (HEADER.pack(MAGIC, 1, 8, 4, 4) + content[HEADER.size :], "4 sequences and 4 document borders"),
        (HEADER.pack(MAGIC, 1, 8, 0, 1), "0 sequences and 1 document borders"),
    ]
    for changed, message in damages:
        path.write_bytes(changed)
        with pytest.raises(DataError, match=message):
            TokenShard(tmp_path / "a")


def test_opening_does_not_read_the_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shard(tmp_path, "a", DOCUMENTS)

    def refuse(_: TokenShard) -> None:
        raise AssertionError("mapped at opening")

    monkeypatch.setattr(TokenShard, "_tokens", property(refuse))
    monkeypatch.setattr(TokenShard, "document_offsets", property(refuse))
    assert TokenShard(tmp_path / "a").num_tokens == 10


@pytest.mark.parametrize("identifier", [-1, 65_536, 70_000])
def test_an_id_that_would_wrap_is_refused(identifier: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"token ids .*{abs(identifier)} .*do not fit uint16; the tokenizer gives ids"):
        write_shard(tmp_path, "a", [[1, identifier]])


def test_a_document_that_the_index_cannot_hold_is_refused(tmp_path: Path) -> None:
    message = "a document of 2147483648 tokens, the index holds up to 2147483647; split it"
    with ShardWriter(tmp_path, "a", np.dtype(np.uint16)) as writer, pytest.raises(DataError, match=message):
        writer.append(np.zeros(1, np.uint16), np.array([2**31]))


def test_the_ends_of_some_documents(tmp_path: Path) -> None:
    write_shard(tmp_path, "a", DOCUMENTS)
    assert TokenShard(tmp_path / "a").last_tokens(1, 3).tolist() == [4, 6]
