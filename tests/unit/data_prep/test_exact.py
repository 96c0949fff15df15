"""Equal documents: exactly the first of each stays, however the corpus is cut; and the hashes that never change."""

import hashlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data_prep.dedup.records import (
    document_ids,
    hash_range,
    map_records,
    num_ranges,
    read_range,
    shard_and_row,
    write_records,
)
from data_prep.dedup.removals import removal_outcomes, surviving
from data_prep.hashing import file_order_key, order_keys, text_digest, validation_places
from data_prep.kept_file import read_batches
from data_prep.steps.dedup import dedup_steps
from data_prep.steps.exact import Exact, ExactRecords, _later_and_first
from gptdist.config.prep import PrepConfig
from tests.unit.data_prep.dedup_work import all_removals, cut_into, make_dedup_work, run_steps, surviving_texts


def corpus(count: int = 400, different: int = 90) -> list[str]:
    choose = random.Random(7)
    return [f"document number {choose.randrange(different)} \u00e9\u4e2d" for _ in range(count)]


@pytest.mark.parametrize("shards", [1, 5])
@pytest.mark.parametrize("texts_per_range", [3, 1 << 22])
def test_the_first_of_equal_documents_stays(tmp_path: Path, shards: int, texts_per_range: int) -> None:
    texts = corpus()
    cut = cut_into(texts, shards)
    work = make_dedup_work(tmp_path / "work", cut, {"exact": True})
    run_steps(work, ExactRecords(), Exact(texts_per_range=texts_per_range))
    if texts_per_range == 3:
        assert work.marker("exact", 0)["tasks"] > 10

    places = [(shard, row) for shard, members in enumerate(cut) for row in range(len(members))]
    first: dict[str, tuple[int, int]] = {}
    for place, text in zip(places, texts, strict=True):
        first.setdefault(text, place)
    assert surviving_texts(work) == {place: text for text, place in first.items()}
    outcomes = {(s, row): outcome for s in range(shards) for row, outcome in removal_outcomes(work, s).items()}
    assert outcomes == {
        place: ("exact", {"kept_shard": first[text][0], "kept_row": first[text][1]})
        for place, text in zip(places, texts, strict=True)
        if first[text] != place
    }


def test_digests_that_share_a_half_are_not_equal() -> None:
    high = np.array([5, 5, 5, 7, 5], dtype=np.uint64)
    low = np.array([1, 2, 1, 1, 2], dtype=np.uint64)
    later, first = _later_and_first(high, low, np.arange(5, dtype=np.uint64))
    assert dict(zip(later.tolist(), first.tolist(), strict=True)) == {2: 0, 4: 1}


def test_nothing_is_copied_where_nothing_goes(tmp_path: Path) -> None:
    work = make_dedup_work(tmp_path / "work", [[f"text {number}" for number in range(50)]], {"exact": True})
    run_steps(work, *dedup_steps(work.config))
    (batch,) = surviving(work, 0, ("text",))
    assert batch.column("row").to_pylist() == list(range(50))
    (original,) = read_batches(work.task_folder("documents", 0), ("text",))
    assert all_removals(work)[0].apply(original, 0).column("text").buffers()[2].address == (
        original.column("text").buffers()[2].address
    )


def test_everything_off_means_no_steps_and_every_document(tmp_path: Path) -> None:
    texts = ["same", "same", "other"]
    work = make_dedup_work(tmp_path / "work", [texts], {"exact": False})
    assert dedup_steps(work.config) == []
    assert surviving_texts(work) == dict(zip([(0, 0), (0, 1), (0, 2)], texts, strict=True))
    assert removal_outcomes(work, 0) == {}


def test_steps_come_in_the_order_in_which_they_depend_on_each_other(tmp_path: Path) -> None:
    work = make_dedup_work(tmp_path / "work", [["text"]], {"lines": {}, "near": {}})
    assert [step.name for step in dedup_steps(work.config)] == [
        *("exact_records", "exact", "line_records", "line_ranges", "line_cuts"),
        *("near_signatures", "near_edges", "near_clusters"),
    ]


@pytest.mark.parametrize("dedup", [{"exact": True}, {"lines": {}}, {"near": {}}, {"lines": {}, "near": {}}])
def test_empty_shards_and_an_empty_corpus_pass_every_step(tmp_path: Path, dedup: dict[str, Any]) -> None:
    for name, shards in (("one", [[]]), ("several", [[], ["a text"], []]), ("none", [])):
        work = make_dedup_work(tmp_path / name, shards, dedup)
        run_steps(work, *dedup_steps(work.config))
        assert list(surviving_texts(work).values()) == [text for shard in shards for text in shard]


def test_ranges_cover_every_hash_once(tmp_path: Path) -> None:
    hashes = np.sort(np.frombuffer(hashlib.shake_128(b"hashes").digest(8 * 999), dtype="<u8"))
    hashes = np.concatenate([np.zeros(1, "u8"), hashes, np.full(1, 2**64 - 1, "u8")])
    write_records(tmp_path / "file", (hashes, np.arange(len(hashes), dtype="u4")))
    for world_size in (1, 2, 7, 64):
        parts = [
            read_range(tmp_path / "file", ("u8", "u4"), hash_range(rank, world_size)) for rank in range(world_size)
        ]
        assert np.array_equal(np.concatenate([part[0] for part in parts]), hashes)
        assert np.array_equal(np.concatenate([part[1] for part in parts]), np.arange(len(hashes)))
    assert [num_ranges(total, 10) for total in (0, 1, 10, 11)] == [1, 1, 1, 2]
    write_records(tmp_path / "empty", (hashes[:0], hashes[:0]))
    assert [len(column) for column in map_records(tmp_path / "empty", ("u8", "u8"))] == [0, 0]


def test_numbers_of_documents_sort_in_corpus_order() -> None:
    ids = document_ids(3, np.array([0, 2**32 - 1]))
    assert ids.tolist() == sorted(ids.tolist())
    assert int(document_ids(2, np.array([2**32 - 1]))[0]) < int(ids[0])
    assert shard_and_row(int(ids[1])) == (3, 2**32 - 1)


def test_every_value_out_of_range_is_named() -> None:
    tree = {
        "lines": {"min_characters": 0, "min_document_characters": 0},
        "near": {
            "bands": 0,
            "rows": 0,
            "min_similarity": 0.0,
            "min_keeper_similarity": 0.5,
            "shingle_letters": 3,
            "min_letters": 0,
        },
    }
    source = {"name": "words", "kind": "files", "paths": ["words"]}
    base = {"name": "test", "output_dir": "out", "tokenizer": {"kind": "byte"}, "sources": [source]}
    problems = PrepConfig.from_tree({**base, "dedup": tree}).dedup.problems()
    keys = ["lines.min_characters", "lines.min_document_characters", "near.bands", "near.rows", "near.min_letters"]
    keys += ["near.min_similarity", "near.min_keeper_similarity", "near.shingle_letters", "near.min_letters"]
    assert [problem.split(": ")[0] for problem in problems] == [f"dedup.{key}" for key in keys]
    assert all(";" in problem for problem in problems)
    problems = PrepConfig.from_tree({**base, "dedup": {"near": {"bands": 300}}}).dedup.problems()
    assert problems == ["dedup.near.bands: 300 bands of 4 rows are more than 1024 values; use fewer of either"]


def test_the_hashes_never_change() -> None:
    """Shards and splits made last year have to stay what they are."""
    digest = text_digest(b"a document")
    assert digest.hex() == "066314029b69676cd5cbb6e537f4cf45"
    assert order_keys(7, digest).tolist() == [1963029531024844293]
    assert file_order_key(7, "a.jsonl") == 15682948362684222061
    assert np.allclose(validation_places(digest), [0.9421871042985176], atol=1e-9)


def test_the_share_of_validation_is_the_fraction() -> None:
    places = validation_places(b"".join(text_digest(str(number).encode()) for number in range(20_000)))
    assert 0.045 < np.mean(places < 0.05) < 0.055
    assert ((places >= 0.0) & (places <= 1.0)).all()


def test_the_order_is_another_for_every_seed_and_follows_nothing() -> None:
    """Ranks of 20,000 texts under two seeds, and under a seed and the split, are as related as by chance."""
    digests = b"".join(text_digest(str(number).encode()) for number in range(20_000))
    found = [order_keys(0, digests), order_keys(1, digests), order_keys(-(2**63), digests), validation_places(digests)]
    ranks = np.array([np.argsort(np.argsort(keys)) for keys in (*found, np.arange(20_000))])
    assert np.abs(np.corrcoef(ranks) - np.eye(5)).max() < 0.03  # four times the spread of chance
    assert all(len(np.unique(keys)) == 20_000 for keys in found[:3])
    bits = np.unpackbits(found[0].view(np.uint8)).reshape(-1, 64).mean(axis=0)
    assert np.abs(bits - 0.5).max() < 0.02


def test_a_batch_may_be_a_slice() -> None:
    from data_prep.dedup.cutting import cut_texts, text_bytes

    column = pa.array(["zero", "one", "two", "three"], pa.large_string())[1:]
    offsets, data = text_bytes(column)
    assert bytes(data[offsets[0] : offsets[1]]) == b"one"
    cut = cut_texts(column, np.array([0, 2]), np.array([1, 0]), np.array([3, 2]))
    assert cut.to_pylist() == ["o", "two", "ree"]
