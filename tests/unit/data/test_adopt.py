"""Files that megatron-core's builder wrote become dataset folders: the same tokens, every damage named."""

import struct
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gptdist.cli.main import main
from gptdist.data.adopt import AdoptOptions, adopt, split_borders
from gptdist.data.dataset import TokenDataset
from gptdist.data.indexed import IndexedFile
from gptdist.data.manifest import DatasetManifest
from gptdist.data.provenance import read_provenance
from gptdist.data.shards import HEADER, MAGIC
from gptdist.data.sources import check_data
from gptdist.data.verify import verify_dataset
from gptdist.errors import DataError
from gptdist.tokenizer.byte import ByteTokenizer
from tests.support.datasets import make_documents, make_run_config

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

    from tests.support.megatron_data import gpt_dataset_config

EOD = ByteTokenizer().eod_id
TEXTS = make_documents(40, seed=5)


def ids_of(texts: Sequence[str]) -> list[list[int]]:
    return [[*row.tolist(), EOD] for row in ByteTokenizer().encode_batch(texts)]


def build(prefix: Path, documents: Sequence[Sequence[int]], dtype: type = np.uint16) -> Path:
    """Write documents of one sequence each, as preprocessing without --split-sentences does."""
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
    for document in documents:
        builder.add_document(torch.tensor(document, dtype=torch.int64), [len(document)])
    builder.finalize(f"{prefix}.idx")
    return prefix


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    ByteTokenizer().save(tmp_path / "bytes")
    return tmp_path / "bytes"


def stream(folder: Path, split: str = "train") -> list[int]:
    dataset = TokenDataset(folder, split)
    return dataset.read(0, dataset.num_tokens).tolist()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_both_read_the_same_tokens(dtype: type, tokenizer: Path, tmp_path: Path) -> None:
    prefix = build(tmp_path / "theirs_document", ids_of(TEXTS), dtype)
    adopted = adopt([prefix], tokenizer, tmp_path / "out", AdoptOptions("theirs", shard_tokens=2000))
    folder = tmp_path / "out" / "theirs"
    theirs = IndexedDataset(str(prefix))
    assert stream(folder) == [token for number in range(len(theirs)) for token in theirs[number].tolist()]
    assert verify_dataset(folder) == []
    shards = adopted.manifest.splits["train"].shards
    assert len(shards) > 1
    assert max(shard.tokens for shard in shards) <= 2000
    ours = [IndexedDataset(str(folder / shard.name)) for shard in shards]
    assert [one[number].tolist() for one in ours for number in range(len(one))] == ids_of(TEXTS)
    assert adopted.manifest.dtype == "uint16"
    assert adopted.manifest.splits["train"].text_bytes == sum(len(text.encode()) for text in TEXTS)
    assert adopted.manifest.tokenizer_fingerprint == ByteTokenizer().fingerprint


def test_several_files_are_one_source_on_any_number_of_workers(tokenizer: Path, tmp_path: Path) -> None:
    prefixes = [build(tmp_path / "a", ids_of(TEXTS[:25])), build(tmp_path / "b", ids_of(TEXTS[25:]), np.int32)]
    for workers in (1, 2):
        options = AdoptOptions(f"of{workers}", shard_tokens=1000, workers=workers)
        adopt(prefixes, tokenizer, tmp_path / "out", options)
    one, two = tmp_path / "out" / "of1", tmp_path / "out" / "of2"
    assert stream(one) == [token for ids in ids_of(TEXTS) for token in ids]
    assert DatasetManifest.read(one).fingerprint() == DatasetManifest.read(two).fingerprint()
    assert DatasetManifest.read(one).recipe == DatasetManifest.read(two).recipe
    dataset = TokenDataset(one, "train")
    origins = read_provenance(one, [dataset.document(number) for number in range(40)])
    expected = [
        (str(prefix), number) for prefix, count in zip(prefixes, (25, 15), strict=True) for number in range(count)
    ]
    assert [(origin.path, origin.record) for origin in origins] == expected
    assert [origin.text_bytes for origin in origins] == [len(text.encode()) for text in TEXTS]


def test_a_run_reads_samples_of_it(tokenizer: Path, tmp_path: Path) -> None:
    prefix = build(tmp_path / "theirs", ids_of(TEXTS))
    adopt([prefix], tokenizer, tmp_path / "out", AdoptOptions("theirs", split=(80.0, 20.0)))
    config = make_run_config(
        tmp_path / "run",
        data={
            "tokenizer": str(tmp_path / "out" / "tokenizer"),
            "sources": [{"path": str(tmp_path / "out" / "theirs")}],
            "eval_samples": 2,
        },
    )
    found, data = check_data(config)
    assert found.fingerprint == ByteTokenizer().fingerprint
    whole = [token for ids in ids_of(TEXTS[:32]) for token in ids]
    first = data.order.address(0).first_token
    assert data.rows(0, 1)[0].tolist() == whole[first : first + config.model.seq_length + 1]


@pytest.mark.parametrize("shares", ["8,1,1", "333,333,334", "1,1", "61.5,20,18.5", "5,0,5"])
def test_split_is_megatrons(shares: str, tmp_path: Path) -> None:
    """Their builder does not come to an end where a share above 0 has no document."""
    prefix = build(tmp_path / "theirs", ids_of(TEXTS))
    config = gpt_dataset_config([prefix], tmp_path / "cache", 16)
    config.split = shares
    config.__post_init__()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        builder = BlendedMegatronDatasetBuilder(GPTDataset, [1, 1, 1], lambda: True, config)
        built = builder.build()
    found = [[] if one is None else one.indices.tolist() for one in built]
    first, second = split_borders([float(share) for share in shares.split(",")], len(TEXTS))
    assert found[0] == list(range(first))
    assert found[1] == list(range(first, second))


def test_validation_files_and_what_is_left_out(tokenizer: Path, tmp_path: Path) -> None:
    train, held_out = build(tmp_path / "train", ids_of(TEXTS[:30])), build(tmp_path / "valid", ids_of(TEXTS[30:]))
    adopt([train], tokenizer, tmp_path / "out", AdoptOptions("a", validation=(held_out,)))
    assert stream(tmp_path / "out" / "a", "validation") == [token for ids in ids_of(TEXTS[30:]) for token in ids]
    adopted = adopt([train], tokenizer, tmp_path / "out", AdoptOptions("b", split=(8.0, 1.0, 1.0)))
    assert {name: split.documents for name, split in adopted.manifest.splits.items()} == {"train": 24, "validation": 3}
    assert adopted.left_out == 3
    assert adopted.manifest.funnel["adopt"]["dropped"] == {"split": 3}


def test_documents_of_several_sequences_and_empty_ones(tokenizer: Path, tmp_path: Path) -> None:
    """As --split-sentences leaves them: only the last sequence of a document ends with end-of-document."""
    builder = IndexedDatasetBuilder(str(tmp_path / "a.bin"), dtype=np.uint16)
    first, second = ids_of(TEXTS[:2])
    builder.add_document(torch.tensor(first), [3, len(first) - 3])
    builder.end_document()
    builder.add_document(torch.tensor(second), [len(second)])
    builder.finalize(str(tmp_path / "a.idx"))
    adopted = adopt([tmp_path / "a"], tokenizer, tmp_path / "out", AdoptOptions("a"))
    assert adopted.empty == 1
    dataset = TokenDataset(tmp_path / "out" / "a", "train")
    assert dataset.shards[0].lengths.tolist() == [len(first), len(second)]
    assert verify_dataset(tmp_path / "out" / "a") == []
    assert read_provenance(tmp_path / "out" / "a", [dataset.document(1)])[0].record == 2


def test_ends_are_asked_for_or_added(tokenizer: Path, tmp_path: Path) -> None:
    bare = build(tmp_path / "bare", [ids[:-1] for ids in ids_of(TEXTS[:3])] + ids_of(TEXTS[3:4]))
    with pytest.raises(DataError, match=r"bare\.bin: 3 of 4 documents do not end with id 256 .*--add-ends"):
        adopt([bare], tokenizer, tmp_path / "out", AdoptOptions("a"))
    assert not (tmp_path / "out" / "a").exists()
    adopted = adopt([bare], tokenizer, tmp_path / "out", AdoptOptions("a", add_ends=True))
    assert adopted.ends_added == 3
    assert stream(tmp_path / "out" / "a") == [token for ids in ids_of(TEXTS[:4]) for token in ids]


def test_ids_of_another_tokenizer(tokenizer: Path, tmp_path: Path) -> None:
    large = build(tmp_path / "large", [[1, 2, EOD], [3, 300, EOD]])
    damaged = build(tmp_path / "negative", [[-1, EOD]], np.int32)
    # 0xFF begins no character: what it is decoded to is encoded otherwise
    other = build(tmp_path / "other", [[255, 254, EOD], [253, EOD]])
    with pytest.raises(DataError) as found:
        adopt([large, damaged], tokenizer, tmp_path / "out", AdoptOptions("a"))
    assert [line.partition(": ")[2].partition(", ")[0] for line in found.value.problems] == [
        "id 300 at token 4",
        "id -1 at token 0",
    ]
    with pytest.raises(DataError, match=r"other\.bin: of 2 documents .* none gave the same ids; name the tokenizer"):
        adopt([other], tokenizer, tmp_path / "out", AdoptOptions("a"))


def test_one_folder_has_one_tokenizer_and_each_name_once(tokenizer: Path, tmp_path: Path) -> None:
    prefix = build(tmp_path / "theirs", ids_of(TEXTS))
    adopt([prefix], tokenizer, tmp_path / "out", AdoptOptions("a"))
    with pytest.raises(DataError, match=r"out/a: exists; remove it"):
        adopt([prefix], tokenizer, tmp_path / "out", AdoptOptions("a"))
    for name in ("../a", "tokenizer"):
        with pytest.raises(DataError, match=rf"--name: '{name}' cannot be a folder here"):
            adopt([prefix], tokenizer, tmp_path / "out", AdoptOptions(name))
    (tmp_path / "out" / "tokenizer" / "gptdist_tokenizer.json").unlink()
    write_other_tokenizer(tmp_path / "out" / "tokenizer")
    with pytest.raises(DataError, match=r"holds tokenizer .*choose another --output"):
        adopt([prefix], tokenizer, tmp_path / "out", AdoptOptions("b"))


def write_other_tokenizer(folder: Path) -> None:
    from gptdist.tokenizer.training import train_bpe

    train_bpe(TEXTS, 300).save(folder)


def header(code: int = 8, sequences: int = 1, borders: int = 2, magic: bytes = MAGIC, version: int = 1) -> bytes:
    return HEADER.pack(magic, version, code, sequences, borders)


def arrays(lengths: list[int], offsets: list[int], borders: list[int]) -> bytes:
    return struct.pack(f"<{len(lengths)}i{len(offsets)}q{len(borders)}q", *lengths, *offsets, *borders)


GOOD = arrays([3], [0], [0, 1])


@pytest.mark.parametrize(
    ("index", "match"),
    [
        (b"TNTIDX\x00\x00" + header()[8:] + GOOD, r"begins with b'TNTIDX.*no token index"),
        (header()[:20], r"begins with b'MMIDIDX.*no token index"),
        (header(version=2) + GOOD, r"version 2 of the format"),
        (header(code=7) + GOOD, r"dtype code 7 is no type of integers"),
        (header(sequences=0) + GOOD, r"0 sequences and 2 document borders; nothing is in it"),
        (header() + GOOD[:-8], r"54 bytes, 1 sequences and 2 document borders make 62"),
        (header(borders=3) + GOOD, r"62 bytes, 1 sequences and 3 document borders make 70"),
        (header() + arrays([-3], [0], [0, 1]), r"sequence 0 has a length below 0"),
        (header() + arrays([3], [2], [0, 1]), r"sequence 0 begins at byte 2, the lengths before it make 0"),
        (header() + arrays([3], [0], [0, 2]), r"document borders go from 0 to 2 and must rise from 0 to 1"),
        (header(borders=3) + arrays([3], [0], [0, 2, 1]), r"document borders go from 0 to 1 and must rise"),
        (header() + arrays([4], [0], [0, 1]), r"a\.bin: 6 bytes, its index says 8 \(4 tokens of uint16\)"),
    ],
    ids=["magic", "cut", "version", "floats", "nothing", "short", "size", "length", "offset", "border", "fall", "bin"],
)
def test_damage_is_named(index: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(6))
    (tmp_path / "a.idx").write_bytes(header() + GOOD)
    assert IndexedFile(tmp_path / "a").num_tokens == 3
    (tmp_path / "a.idx").write_bytes(index)
    with pytest.raises(DataError, match=match):
        IndexedFile(tmp_path / "a")


def test_every_damaged_file_is_named_at_once(tokenizer: Path, tmp_path: Path) -> None:
    prefix = build(tmp_path / "cut", ids_of(TEXTS))
    with (tmp_path / "cut.bin").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(DataError) as found:
        adopt([prefix, tmp_path / "absent"], tokenizer, tmp_path / "out", AdoptOptions("a"))
    assert [line.partition(": ")[0] for line in found.value.problems] == [f"{prefix}.bin", f"{tmp_path}/absent.idx"]


def test_offsets_beyond_32_bits(tmp_path: Path) -> None:
    """Five billion tokens, of which a sparse file has none on the disk: places are not cut to 32 bits."""
    lengths = [2_000_000_000, 2_000_000_000, 1_000_000_000]
    offsets = [0, 4_000_000_000, 8_000_000_000]
    (tmp_path / "a.idx").write_bytes(header(sequences=3, borders=4) + arrays(lengths, offsets, [0, 1, 2, 3]))
    with (tmp_path / "a.bin").open("wb") as file:
        file.truncate(10_000_000_000)
        file.seek(9_999_999_998)
        file.write(struct.pack("<H", EOD))
    shard = IndexedFile(tmp_path / "a")
    assert shard.num_tokens == 5_000_000_000
    assert shard.document_offsets.tolist() == [0, 2_000_000_000, 4_000_000_000, 5_000_000_000]
    assert shard.last_tokens(0, 3).tolist() == [0, 0, EOD]
    assert list(shard.cuts(0, 3, 4_000_000_000)) == [(0, 2), (2, 3)]


def test_command(tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prefix = build(tmp_path / "pile_document", ids_of(TEXTS))
    words = ["data", "adopt", str(prefix), "--tokenizer", str(tokenizer), "--output", str(tmp_path / "out")]
    assert main([*words, "--split", "8,1,1"]) == 0
    printed = capsys.readouterr().out
    assert "train       32 documents," in printed
    assert "4 documents left out by --split" in printed
    assert main(["data", "verify", str(tmp_path / "out" / "pile_document")]) == 0
    assert main(["data", "show", str(tmp_path / "out" / "pile_document"), "--document", "3"]) == 0
    shown = capsys.readouterr().out
    assert TEXTS[3] in shown
    assert f"{prefix}, record 3" in shown
    assert main(words) == 2
    assert capsys.readouterr().err.count("gptdist data: error: ") == 1
    for wrong in (["--split", "0,1"], ["--split", "a"], ["--workers", "0"]):
        with pytest.raises(SystemExit) as ended:
            main([*words, *wrong])
        assert ended.value.code == 2


def test_vocab_and_merges_become_a_tokenizer(tmp_path: Path) -> None:
    """As the pages for users of Megatron-LM and GPT-NeoX say, of their GPT2BPETokenizer's two files."""
    from tokenizers import ByteLevelBPETokenizer

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(TEXTS, vocab_size=300, special_tokens=["<|endoftext|>"])
    trained.save_model(str(tmp_path))
    again = ByteLevelBPETokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    again.save(str(tmp_path / "tokenizer.json"))
    end = trained.token_to_id("<|endoftext|>")
    prefix = build(tmp_path / "theirs", [[*trained.encode(text).ids, end] for text in TEXTS])
    adopted = adopt([prefix], tmp_path / "tokenizer.json", tmp_path / "out", AdoptOptions("theirs"))
    assert adopted.manifest.eod_id == end
    assert adopted.manifest.splits["train"].text_bytes == sum(len(text.encode()) for text in TEXTS)
