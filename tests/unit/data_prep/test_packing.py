"""Where shards end, and best-fit packing: nothing that fits is cut, nothing lost, nothing ordered by length."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.document import Document
from data_prep.packing.best_fit import best_fit, concatenated
from data_prep.packing.blocks import key_order_blocks
from data_prep.packing.cuts import KEY_END, shard_ends
from data_prep.packing.runs import RunFile, RunWriter, gathered, part_borders
from data_prep.packing.shard_files import ShardFiles
from data_prep.steps.shards import finished_packing, finished_splits, read_layout
from data_prep.work import Work
from gptdist.config.prep_tokenizer import PackingSection
from gptdist.data.dataset import TokenDataset
from gptdist.data.manifest import DatasetManifest
from gptdist.data.provenance import read_provenance
from gptdist.data.verify import verify_dataset
from gptdist.errors import DataError
from gptdist.tokenizer.byte import ByteTokenizer
from tests.unit.data_prep.made_work import make_work, run_all

LENGTH = 64
EOD = ByteTokenizer.eod_id


def keys_of(count: int, seed: int = 0) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).integers(0, 2**64, size=count, dtype=np.uint64))


def plain_best_fit(lengths: list[int], capacity: int) -> list[int]:
    """Return the room left in each bin, found by looking at all of them."""
    room: list[int] = []
    for size in sorted(lengths, reverse=True):
        fitting = [index for index, left in enumerate(room) if left >= size]
        if fitting:
            room[min(fitting, key=lambda index: room[index])] -= size
        else:
            room.append(capacity - size)
    return sorted(room)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=80), st.integers(2, 70))
def test_samples_hold_whole_pieces_and_all_of_every_document(lengths: list[int], seq_length: int) -> None:
    found = best_fit(np.array(lengths), keys_of(len(lengths)), seq_length)
    ends = np.cumsum(found.tokens + found.padding)
    starts = ends - found.tokens - found.padding
    assert ends[-1] % seq_length == 0
    assert np.array_equal(starts // seq_length, (ends - 1) // seq_length), "a piece lies in two samples"
    columns = (found.document, found.piece, found.begin, found.tokens)
    pieces = sorted(zip(*(column.tolist() for column in columns), strict=True))
    expected = []
    for document, length in enumerate(lengths):
        for piece, begin in enumerate(range(0, length, seq_length)):
            expected.append((document, piece, begin, min(seq_length, length - begin)))
    assert pieces == expected
    is_last = np.append(starts[1:] % seq_length == 0, True)
    assert not found.padding[~is_last].any(), "padding lies inside a sample"


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(40, 70))
def test_it_is_best_fit_decreasing(lengths: list[int], seq_length: int) -> None:
    found = best_fit(np.array(lengths), keys_of(len(lengths)), seq_length)
    starts = np.cumsum(found.tokens + found.padding) - found.tokens - found.padding
    filled = np.bincount(starts // seq_length, weights=found.tokens).astype(int)
    assert sorted((seq_length - filled).tolist()) == plain_best_fit(lengths, seq_length)


def test_nothing_is_ordered_by_length() -> None:
    random = np.random.default_rng(1)
    lengths = np.maximum(2, random.lognormal(4.0, 1.2, size=20_000).astype(np.int64))
    found = best_fit(lengths, keys_of(lengths.size), 512)
    starts = np.cumsum(found.tokens + found.padding) - found.tokens - found.padding
    sample = starts // 512
    pieces = np.bincount(sample)
    noise = 3 / np.sqrt(pieces.size)
    assert abs(np.corrcoef(np.arange(pieces.size), pieces)[0, 1]) < noise, "samples of many documents come first"
    order = found.document[found.piece == 0]
    assert abs(np.corrcoef(np.arange(order.size), order)[0, 1]) < noise, "the keyed order still shows"
    shared = np.flatnonzero((sample[1:] == sample[:-1]) & (found.tokens[1:] != found.tokens[:-1]))
    longer_first = np.mean(found.tokens[shared] > found.tokens[shared + 1])
    assert 0.4 < longer_first < 0.6, "the longest document of a sample lies first"
    assert found.padding.sum() < 0.001 * lengths.sum()


def test_without_packing_documents_follow_each_other() -> None:
    found = concatenated(np.array([3, 1, 2]))
    assert found.document.tolist() == [0, 1, 2]
    assert found.tokens.tolist() == [3, 1, 2]
    assert found.piece.tolist() == found.begin.tolist() == found.padding.tolist() == [0, 0, 0]


def texts() -> list[str]:
    random = np.random.default_rng(5)
    sizes = [LENGTH - 1, LENGTH, 2 * LENGTH - 1, 3 * LENGTH, 1, *random.geometric(1 / 50, size=400).tolist()]
    return [f"{number:04d}".ljust(size, "abcdefg"[number % 7])[: max(size, 4)] for number, size in enumerate(sizes)]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = tmp_path_factory.mktemp("packed")
    came = [Document(text, "in.jsonl", number) for number, text in enumerate(texts())]
    packing = {"method": "best_fit", "seq_length": LENGTH}
    work = make_work(folder, [(0, came[:200]), (0, came[200:])], packing=packing, shard_tokens=4000)
    run_all(work)
    return work


@pytest.fixture
def dataset(packed: Work, tmp_path: Path) -> Path:
    """Return the dataset folder that the shards become."""
    for rank, output in enumerate(read_layout(packed)):
        for path in packed.task_folder("shards", rank).glob(f"{output.name}.*"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    make_manifest(packed).write(tmp_path)
    return tmp_path


def make_manifest(work: Work, **changes: Any) -> DatasetManifest:
    fields: dict[str, Any] = {
        "name": "s0",
        "tokenizer_fingerprint": ByteTokenizer.fingerprint,
        "vocab_size": ByteTokenizer.vocab_size,
        "eod_id": EOD,
        "dtype": "uint16",
        "splits": finished_splits(work, 0),
        "weight": 1.0,
        "funnel": {},
        "config": {},
        "recipe": "a test",
        "packing": finished_packing(work, 0),
    }
    return DatasetManifest(**{**fields, **changes})


def test_a_packed_dataset_is_whole_and_verifies(dataset: Path) -> None:
    assert DatasetManifest.read(dataset).packing_seq_length == LENGTH
    assert verify_dataset(dataset) == []
    found: dict[int, str] = {}
    for split in ("train", "validation"):
        stream = TokenDataset(dataset, split)
        assert stream.num_tokens % LENGTH == 0
        spans = stream.documents_in(0, stream.num_tokens)
        pieces: dict[int, list[tuple[int, list[int], int]]] = {}
        for span, origin in zip(spans, read_provenance(dataset, spans), strict=True):
            assert span.first_token // LENGTH == span.last_token // LENGTH
            ids = stream.read(span.first_token, origin.tokens).tolist()
            pieces.setdefault(origin.record, []).append((origin.piece, ids, origin.text_bytes))
        for record, some in pieces.items():
            some.sort()
            assert [piece for piece, _, _ in some] == list(range(len(some)))
            for _, ids, _ in some[:-1]:
                assert len(ids) == LENGTH
                assert EOD not in ids
            assert [size > 0 for _, _, size in some] == [True] + [False] * (len(some) - 1)
            ids = [token for _, part, _ in some for token in part]
            end = ids.index(EOD)
            assert set(ids[end:]) == {EOD}
            found[record] = bytes(ids[:end]).decode()
            assert some[0][2] == len(found[record])
    assert found == dict(enumerate(texts()))


def test_the_manifest_says_what_packing_saved(packed: Work) -> None:
    packing = finished_packing(packed, 0)
    assert packing is not None
    assert (packing["method"], packing["seq_length"]) == ("best_fit", LENGTH)
    counts = packing["splits"]["train"]
    train = finished_splits(packed, 0)["train"]
    assert train.tokens == train.text_bytes + counts["documents"] + counts["padding_tokens"]
    assert train.documents == counts["documents"] + counts["cuts"]
    assert counts["documents_cut"] < counts["documents_cut_without"]
    assert counts["tokens_cut"] <= counts["tokens_cut_without"]
    both = [packing["splits"][split] for split in ("train", "validation")]
    sizes = [len(text) + 1 for text in texts()]
    assert sum(one["documents"] for one in both) == len(sizes)
    assert sum(one["documents_cut"] for one in both) == sum(size > LENGTH for size in sizes)
    assert sum(one["cuts"] for one in both) == sum((size - 1) // LENGTH for size in sizes)
    assert sum(one["tokens_cut"] for one in both) == sum(size for size in sizes if size > LENGTH)
    assert all(isinstance(value, int) for one in both for value in one.values())


def test_cuts_without_packing_are_counted_over_blocks(tmp_path: Path) -> None:
    lengths = [30, 40, 64, 1, 200, 57]
    folder = write_runs(tmp_path, [lengths])
    counted = []
    for block_tokens in (1, 100, 1 << 20):
        files = ShardFiles(tmp_path, "a", np.dtype(np.uint16), 0, PackingSection(method="best_fit", seq_length=LENGTH))
        run = RunFile(folder, "train", 0)
        blocks = key_order_blocks([run], (0, KEY_END), np.dtype(np.uint16), block_tokens=block_tokens)
        finished = files.write(blocks)
        assert finished.packing is not None
        counted.append([finished.packing[f"{name}_without"] for name in ("documents_cut", "cuts", "tokens_cut")])
    ends = np.cumsum(lengths)
    cuts = (ends - 1) // LENGTH - (ends - lengths) // LENGTH
    assert counted == [[int((cuts > 0).sum()), int(cuts.sum()), int(np.array(lengths)[cuts > 0].sum())]] * 3


def damaged(dataset: Path, name: str, change: Any) -> list[str]:
    """Change a file and the manifest's hash of it; return what is found."""
    import hashlib
    import json

    path = dataset / name
    path.write_bytes(change(path.read_bytes()))
    manifest = dataset / "manifest.json"
    tree = json.loads(manifest.read_text())
    stem, _, ending = name.rpartition(".")
    key = {"bin": "bin_sha256", "parquet": "provenance_sha256"}[ending]
    for entry in tree["splits"]["train"]["shards"]:
        if entry["name"] == stem:
            entry[key] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(tree))
    return verify_dataset(dataset)


def test_a_cut_that_is_none_is_found(dataset: Path) -> None:
    stream = TokenDataset(dataset, "train")
    shard = stream.shards[0]
    whole = int(np.flatnonzero((shard.lengths == LENGTH) & (shard.last_tokens() == EOD))[0])
    short = int(np.flatnonzero(shard.lengths < LENGTH)[0])

    def overwrite(document: int) -> Any:
        end = 2 * (shard.document_range(document)[1] - 1)
        return lambda content: content[:end] + b"\x07\x00" + content[end + 2 :]

    (problem,) = damaged(dataset, "train-00000.bin", overwrite(whole))
    assert "pieces continue a document" in problem
    first, *_ = damaged(dataset, "train-00000.bin", overwrite(short))
    assert f"document {short} does not end with id {EOD}" in first


def test_a_shard_that_is_no_whole_number_of_samples_is_refused(packed: Work, tmp_path: Path) -> None:
    packing = {**(finished_packing(packed, 0) or {}), "seq_length": LENGTH - 1}
    make_manifest(packed, packing=packing).write(tmp_path)
    with pytest.raises(DataError, match=r"shard 'train-00000' of split 'train' is not a whole number of 63 tokens"):
        DatasetManifest.read(tmp_path)


@pytest.mark.parametrize(
    ("packing", "message"),
    [
        ({"method": "worst_fit", "seq_length": 64}, "packing method 'worst_fit' for 64 tokens is unknown"),
        ({"method": "best_fit", "seq_length": 0}, "packing method 'best_fit' for 0 tokens is unknown"),
        ({"method": "best_fit"}, "'seq_length' is missing"),
    ],
)
def test_other_packings_are_refused(packing: dict[str, Any], message: str, packed: Work, tmp_path: Path) -> None:
    make_manifest(packed, packing={"seq_length": 64, **packing}, splits={}).write(tmp_path)
    if "seq_length" not in packing:
        import json

        tree = json.loads((tmp_path / "manifest.json").read_text())
        del tree["packing"]["seq_length"]
        (tmp_path / "manifest.json").write_text(json.dumps(tree))
    with pytest.raises(DataError, match=message):
        DatasetManifest.read(tmp_path)


@pytest.mark.parametrize("length", [1, (1 << 20) + 1])
def test_a_sample_length_out_of_range(length: int) -> None:
    (problem,) = PackingSection(method="best_fit", seq_length=length).problems()
    assert problem.startswith(f"packing.seq_length: must be 2 … 1048576, got {length}; set it to the model.seq_length")
    assert PackingSection(method="best_fit", seq_length=2048).problems() == []


def write_runs(folder: Path, runs: list[list[int]], same_key: int | None = None) -> Path:
    """Write a training run for each list of lengths; keys ascend, or are all the same."""
    for number, lengths in enumerate(runs):
        keys = keys_of(len(lengths), number) if same_key is None else np.full(len(lengths), same_key, np.uint64)
        batch = pa.RecordBatch.from_pydict(
            {
                "key": pa.array(keys),
                "row": pa.array(np.arange(len(lengths))),
                "validation": pa.array([False] * len(lengths)),
                "path": pa.array(["x"] * len(lengths)),
                "record": pa.array(np.arange(len(lengths))),
                "offset": pa.array([None] * len(lengths), pa.int64()),
                "url": pa.array([None] * len(lengths), pa.string()),
                "language": pa.array([None] * len(lengths), pa.string()),
                "digest": pa.array([bytes(16)] * len(lengths), pa.binary(16)),
            }
        )
        writer = RunWriter(folder, np.dtype(np.uint16))
        writer.runs["train"] = number
        writer.room(sum(lengths))[:] = np.repeat(np.arange(len(lengths)), lengths)
        writer.append(batch, np.array(lengths), np.array(lengths))
        writer.flush()
    return folder


def test_shards_end_at_the_same_keys_whether_counted_exactly_or_in_bins(tmp_path: Path) -> None:
    lengths = np.random.default_rng(2).integers(1, 50, size=900).tolist()
    folder = write_runs(tmp_path, [lengths[:500], lengths[500:]])
    runs = [RunFile(folder, "train", number) for number in (0, 1)]
    exact = shard_ends(runs, 900, 2000)
    keys = np.concatenate([keys_of(500), keys_of(400, seed=1)])
    order = np.argsort(keys)
    total, done, expected = np.cumsum(np.array(lengths)[order]), 0, []
    while done < 900:
        before = int(total[done - 1]) if done else 0
        done = min(int(np.searchsorted(total, before + 2000)) + 1, 900)
        expected.append(int(keys[order][done - 1]) + 1)
    assert exact == [*expected[:-1], 1 << 64]
    binned = shard_ends(runs, 900, 2000, exact_documents=0)
    assert len(binned) == len(exact)
    for one, other in zip(exact[:-1], binned[:-1], strict=True):
        assert other == ((one - 1) >> 44 << 44) + (1 << 44), "the end of the bin"


def test_the_largest_key_has_a_shard(tmp_path: Path) -> None:
    folder = write_runs(tmp_path, [[5, 5]])
    run = RunFile(folder, "train", 0)
    assert shard_ends([run], 2, 1)[-1] == KEY_END == 1 << 64
    blocks = list(key_order_blocks([run], (int(keys_of(2)[1]), KEY_END), np.dtype(np.uint16)))
    assert [block.rows.num_rows for block in blocks] == [1]


def test_ranges_are_gathered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_prep.packing.runs._WRITE_BYTES", 6)
    tokens = np.arange(20, dtype=np.uint16)
    parts = list(gathered(tokens, np.array([15, 0, 3, 7]), np.array([5, 2, 0, 3])))
    assert len(parts) > 2
    assert np.frombuffer(b"".join(parts), np.uint16).tolist() == [15, 16, 17, 18, 19, 0, 1, 7, 8, 9]


def test_parts_are_about_as_large_as_asked() -> None:
    assert part_borders(np.array([3, 3, 3, 10, 1, 1]), 6) == [2, 3, 4, 6]
    assert part_borders(np.array([], dtype=np.int64), 6) == []


@pytest.mark.parametrize("key", [0, 7 << 60, (1 << 64) - 1])
def test_equal_keys_are_one_block_however_many(key: int, tmp_path: Path) -> None:
    folder = write_runs(tmp_path, [[5] * 6, [3] * 4], same_key=key)
    runs = [RunFile(folder, "train", number) for number in (0, 1)]
    (block,) = key_order_blocks(runs, (0, KEY_END), np.dtype(np.uint16), block_tokens=10)
    assert block.rows.column("tokens").to_pylist() == [5] * 6 + [3] * 4
    assert block.rows.column("row").to_pylist() == [*range(6), *range(4)]
    assert block.tokens.size == 42
