"""Whole runs: what comes in comes out once, in the right split, the same every time."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from data_prep.report import report
from gptdist.data.manifest import DatasetManifest
from gptdist.data.verify import verify_dataset
from gptdist.errors import DataError, DataProblemsError
from gptdist.tokenizer.byte import ByteTokenizer
from gptdist.tokenizer.tokenizer import load_tokenizer
from tests.unit.data_prep.made_corpus import (
    files_source,
    hashes,
    make_config,
    make_texts,
    run,
    texts_of,
    write_texts,
)

NAMES = ("good", "bad", "worse")


def test_every_document_comes_out_once(tmp_path: Path) -> None:
    texts = make_texts(100)
    source = write_texts(tmp_path / "in", texts)
    preparation, _ = run(make_config(tmp_path / "out", files_source(source)))
    train, validation = texts_of(tmp_path / "out/words", "train"), texts_of(tmp_path / "out/words", "validation")
    assert sorted([*train.values(), *validation.values()]) == sorted(texts)
    assert set(train) == {f"{source}/{i:04d}.txt#0" for i in range(100)} - set(validation)
    assert 3 <= len(validation) <= 20
    manifest = preparation.manifests[0]
    assert len(manifest.splits["train"].shards) > 3
    assert all(shard.tokens >= 2000 for shard in manifest.splits["train"].shards[:-1])
    assert manifest.splits["train"].text_bytes == sum(len(text.encode()) for text in train.values())
    assert verify_dataset(tmp_path / "out/words") == []
    assert load_tokenizer(tmp_path / "out/tokenizer").fingerprint == manifest.tokenizer_fingerprint
    assert not (tmp_path / "out/.prep-work").exists()


def test_documents_are_shuffled_by_the_seed(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "in", make_texts(60))
    orders = []
    for seed in (0, 1):
        run(make_config(tmp_path / str(seed), files_source(source), seed=seed))
        orders.append(list(texts_of(tmp_path / str(seed) / "words", "train")))
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) not in orders


@pytest.mark.parametrize(
    "tokenizer",
    [
        {"kind": "byte"},
        {"kind": "bpe", "vocab_size": 300},
        {"kind": "sentencepiece", "vocab_size": 600},
        {"kind": "sentencepiece", "model_type": "bpe", "vocab_size": 600, "train_bytes": 5000},
    ],
)
def test_two_runs_give_the_same_bytes(tokenizer: dict[str, Any], tmp_path: Path) -> None:
    source = write_texts(tmp_path / "in", make_texts(80))
    other = write_texts(tmp_path / "more", make_texts(40, seed=1))
    for name in ("a", "b"):
        sources = files_source(source), files_source(other, "more", weight=3.0)
        run(make_config(tmp_path / name, *sources, tokenizer=tokenizer))
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")


def test_a_document_never_moves_between_splits(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "in", make_texts(80))
    run(make_config(tmp_path / "few", files_source(source)))
    before = texts_of(tmp_path / "few/words", "validation")
    write_texts(source / "more", make_texts(200, seed=5))
    run(make_config(tmp_path / "many", files_source(source), seed=99))
    after = texts_of(tmp_path / "many/words", "validation")
    assert {path: text for path, text in after.items() if "/more/" not in path} == before
    assert len(after) > len(before)


def test_a_text_is_kept_once_over_all_sources(tmp_path: Path) -> None:
    texts = make_texts(60)
    first = write_texts(tmp_path / "a", [*texts, texts[0], texts[1]])
    second = write_texts(tmp_path / "b", [*texts[:40], *make_texts(50, seed=1)])
    preparation, _ = run(make_config(tmp_path / "out", files_source(first, "a"), files_source(second, "b")))
    passages = [manifest.funnel["dedup"] for manifest in preparation.manifests]
    assert [passage["dropped"] for passage in passages] == [{"exact": 2}, {"exact": 40}]
    assert [(passage["documents_in"], passage["documents_out"]) for passage in passages] == [(62, 60), (90, 50)]
    kept = [
        text
        for name in "ab"
        for split in ("train", "validation")
        for text in texts_of(tmp_path / "out" / name, split).values()
    ]
    assert len(kept) == len(set(kept)) == 110


def test_dedup_can_be_off(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "a", make_texts(40) * 2)
    preparation, _ = run(make_config(tmp_path / "out", files_source(source), dedup={"exact": False}))
    assert sum(split.documents for split in preparation.manifests[0].splits.values()) == 80


def test_max_bytes_takes_a_random_and_stable_sample(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "a", make_texts(200))
    config = make_config(tmp_path / "out", files_source(source, max_bytes=8000), validation_fraction=0.0)
    preparation, _ = run(config)
    kept = preparation.manifests[0].splits["train"].text_bytes
    assert 8000 <= kept < 8000 + 400
    taken = set(texts_of(tmp_path / "out/words", "train"))
    numbers = sorted(int(Path(path.partition("#")[0]).stem) for path in taken)
    assert numbers[-1] > 150, "the sample is the beginning of the alphabet"
    write_texts(source, make_texts(20, seed=3), suffix=".md")
    run(config)
    assert len(taken & set(texts_of(tmp_path / "out/words", "train"))) > 0.8 * len(taken)


def test_filters_count_by_reason(tmp_path: Path) -> None:
    good = make_texts(50)
    bad = ["   \n", "short", "x" * 5000, "1234567890 " * 10 + "a", "word " * 60 + "\n"]
    source = write_texts(tmp_path / "a", [*good, *bad])
    filters = {
        "min_characters": 10,
        "max_characters": 4000,
        "max_line_characters": 280,
        "min_alphabetic_fraction": 0.3,
    }
    preparation, _ = run(make_config(tmp_path / "out", files_source(source), filters=filters))
    passage = preparation.manifests[0].funnel["filters"]
    assert passage["dropped"] == {"not_alphabetic": 1, "long_line": 1, "too_long": 1, "too_short": 1}
    assert (passage["documents_in"], passage["documents_out"]) == (54, 50)
    assert preparation.manifests[0].funnel["read"]["dropped"] == {"empty": 1}


def test_the_same_command_again_does_nothing(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "a", make_texts(60))
    config = make_config(tmp_path / "out", files_source(source), tokenizer={"kind": "bpe", "vocab_size": 300})
    run(config)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    preparation, said = run(config)
    assert preparation.is_reused
    assert "test: finished already from the same config and inputs; kept as it is" in said
    del times[tmp_path / "out/.prep.lock"]
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


@pytest.mark.parametrize(
    "change", ["config", "new file", "grown file", "rewritten file", "lost shard", "lost manifest", "lost tokenizer"]
)
def test_what_changed_is_made_again(change: str, tmp_path: Path) -> None:
    source = write_texts(tmp_path / "a", make_texts(60))
    options: dict[str, Any] = {}
    run(make_config(tmp_path / "out", files_source(source)))
    match change:
        case "config":
            options = {"shard_tokens": 1000}
        case "new file":
            write_texts(source, make_texts(1, seed=8), suffix=".md")
        case "grown file":
            (source / "0007.txt").write_text("a longer text than the one which was in this file before, at any rate")
        case "rewritten file":
            path = source / "0007.txt"
            path.write_text(path.read_text()[::-1])  # of the same size
        case "lost tokenizer":
            shutil.rmtree(tmp_path / "out/tokenizer")
        case "lost shard":
            (tmp_path / "out/words/train-00001.bin").unlink()
        case "lost manifest":
            (tmp_path / "out/words/manifest.json").unlink()
    preparation, _ = run(make_config(tmp_path / "out", files_source(source), **options))
    assert not preparation.is_reused
    run(make_config(tmp_path / "fresh", files_source(source), **options))
    assert hashes(tmp_path / "out") == hashes(tmp_path / "fresh")


def test_kept_work_serves_a_changed_run(tmp_path: Path) -> None:
    """A change of a late step does not do the early ones again; what it gives is what a fresh run gives."""
    source = write_texts(tmp_path / "a", make_texts(60))
    run(make_config(tmp_path / "out", files_source(source)), keep_work=True)
    (documents,) = (tmp_path / "out/.prep-work").glob("documents-*/000000/done.json")
    before = documents.stat().st_mtime_ns
    run(make_config(tmp_path / "out", files_source(source), shard_tokens=900), keep_work=True)
    assert documents.stat().st_mtime_ns == before
    assert len(list((tmp_path / "out/.prep-work").glob("shards-*"))) == 1, "the work of another config is left"
    run(make_config(tmp_path / "fresh", files_source(source), shard_tokens=900))
    shutil.rmtree(tmp_path / "out/.prep-work")
    assert hashes(tmp_path / "out") == hashes(tmp_path / "fresh")


def test_a_second_run_at_the_same_time_is_refused(tmp_path: Path) -> None:
    import fcntl

    source = write_texts(tmp_path / "a", make_texts(60))
    (tmp_path / "out").mkdir()
    with (tmp_path / "out/.prep.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another 'gptdist prep run' writes to"):
            run(make_config(tmp_path / "out", files_source(source)))


def test_an_output_folder_that_cannot_be_written(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "a", make_texts(60))
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match=r"output_dir: '.*out' cannot be written"):
        run(make_config(tmp_path / "out", files_source(source)))


def test_nothing_is_left_of_a_source_that_is_filtered_away(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "a", ["tiny"])
    config = make_config(tmp_path / "out", files_source(source), filters={"min_characters": 100})
    with pytest.raises(DataError, match=r"'words': empty: 0 documents kept of 1 \(dropped: 1 filters\.too_short\)"):
        run(config)
    assert not (tmp_path / "out/words").exists()


def test_an_empty_split_is_refused_before_tokenizing(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "a", make_texts(3))
    with pytest.raises(
        DataError,
        match=r"the validation split is empty, 3 documents kept of 3; raise validation_fraction from .* to 0\.\d{3}",
    ):
        run(make_config(tmp_path / "out", files_source(source), validation_fraction=0.001))
    with pytest.raises(DataError, match="no document for training, 3 documents kept of 3; lower validation_fraction"):
        run(make_config(tmp_path / "out", files_source(source), validation_fraction=0.999999))
    preparation, _ = run(make_config(tmp_path / "out", files_source(source), validation_fraction=0.0))
    assert list(preparation.manifests[0].splits) == ["train"]


def test_a_tokenizer_can_be_loaded(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "a", make_texts(60))
    ByteTokenizer().save(tmp_path / "given")
    run(make_config(tmp_path / "out", files_source(source), tokenizer={"load": str(tmp_path / "given")}))
    assert load_tokenizer(tmp_path / "out/tokenizer").kind == "byte"
    with pytest.raises(DataError, match="no such tokenizer"):
        run(make_config(tmp_path / "other", files_source(source), tokenizer={"load": str(tmp_path / "none")}))
    assert not (tmp_path / "other/words").exists()


def test_a_sample_too_small_for_a_vocabulary_is_refused(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "a", ["a", "b", "c"])
    config = make_config(
        tmp_path / "out", files_source(source), tokenizer={"kind": "bpe", "vocab_size": 300}, validation_fraction=0.0
    )
    with pytest.raises(DataError, match="training found nothing beyond single bytes"):
        run(config)


def test_the_report_counts(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "a", [*make_texts(60), ""])
    preparation, _ = run(make_config(tmp_path / "out", files_source(source)))
    text = report(preparation.summary)
    manifest = DatasetManifest.read(tmp_path / "out/words")
    assert "1 read" in text
    assert f"{manifest.splits['train'].tokens:,}" in text
    assert "tokenizer byte with 257 ids" in text


def test_all_failing_shards_are_named_at_once(tmp_path: Path) -> None:
    """Each above the share of damage that is allowed; what is whole is done and not done again."""
    for name in ("good", "bad", "worse"):
        lines = [f'{{"text": "{text.strip()}"}}' for text in make_texts(40, seed=len(name))]
        lines[3:9] = ["{"] * (0 if name == "good" else len(name))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    sources = [{"name": name, "kind": "jsonl", "paths": [str(tmp_path / f"{name}.jsonl")]} for name in NAMES]
    with pytest.raises(DataProblemsError) as failed:
        run(make_config(tmp_path / "out", *sources, validation_fraction=0.3), workers=2)
    first, second = failed.value.problems
    assert first.startswith("sources[1] 'bad', input shard 1: 3 of 37 records cannot be read (3 not_json), more than")
    assert f"max_damaged_fraction 0.01; first: {tmp_path}/bad.jsonl" in first
    assert "sources[2] 'worse', input shard 2: 5 of " in second
    assert len(list((tmp_path / "out/.prep-work").glob("documents-*/000000/done.json"))) == 1
    preparation, _ = run(make_config(tmp_path / "out", *sources, max_damaged_fraction=0.2, validation_fraction=0.3))
    assert [source["damage"] for source in preparation.summary["sources"]] == [{}, {"not_json": 3}, {"not_json": 5}]
