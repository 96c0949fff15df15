"""Whole runs: what comes in comes out once, in the right split, the same every time."""

from pathlib import Path
from typing import Any

import pytest

from data_prep.report import report
from gptdist.data.manifest import DatasetManifest
from gptdist.data.verify import verify_dataset
from gptdist.errors import DataError, TokenizerError
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


def test_every_document_comes_out_once(tmp_path: Path) -> None:
    texts = make_texts(100)
    source = write_texts(tmp_path / "in", texts)
    preparation, _ = run(make_config(tmp_path / "out", files_source(source)))
    train, validation = texts_of(tmp_path / "out/words", "train"), texts_of(tmp_path / "out/words", "validation")
    assert sorted([*train.values(), *validation.values()]) == sorted(texts)
    assert set(train) == {f"{source}/{i:04d}.txt#0" for i in range(100)} - set(validation)
    assert 3 <= len(validation) <= 20
    manifest = preparation.sources[0].manifest
    assert len(manifest.splits["train"].shards) > 3
    assert all(shard.tokens >= 2000 for shard in manifest.splits["train"].shards[:-1])
    assert manifest.splits["train"].text_bytes == sum(len(text.encode()) for text in train.values())
    assert verify_dataset(tmp_path / "out/words") == []
    assert load_tokenizer(tmp_path / "out/tokenizer").fingerprint == manifest.tokenizer_fingerprint
    assert not (tmp_path / "out/.prep-partial").exists()


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
    funnels = [source.manifest.funnel for source in preparation.sources]
    assert [funnel["dropped"] for funnel in funnels] == [{"duplicate": 2}, {"duplicate": 40}]
    assert [(funnel["documents_in"], funnel["documents_kept"]) for funnel in funnels] == [(62, 60), (90, 50)]
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
    assert preparation.sources[0].manifest.funnel["documents_kept"] == 80


def test_max_bytes_takes_a_random_and_stable_sample(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "a", make_texts(200))
    config = make_config(tmp_path / "out", files_source(source, max_bytes=8000), validation_fraction=0.0)
    preparation, _ = run(config)
    kept = preparation.sources[0].manifest.funnel["bytes_kept"]
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
    funnel = preparation.sources[0].manifest.funnel
    assert funnel["dropped"] == {"few_letters": 1, "long_line": 1, "too_long": 1, "too_short": 2}
    assert (funnel["documents_in"], funnel["documents_kept"]) == (55, 50)
    assert funnel["bytes_in"] == sum(len(text) for text in [*good, *bad])


def test_the_same_command_again_does_nothing(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "a", make_texts(60))
    config = make_config(tmp_path / "out", files_source(source), tokenizer={"kind": "bpe", "vocab_size": 300})
    run(config)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    preparation, said = run(config)
    assert preparation.sources[0].is_reused
    assert "words: finished already from the same config and inputs; kept as it is" in said
    del times[tmp_path / "out/.prep.lock"]
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


@pytest.mark.parametrize("change", ["config", "new file", "grown file", "lost shard", "lost manifest"])
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
        case "lost shard":
            (tmp_path / "out/words/train-00001.bin").unlink()
        case "lost manifest":
            (tmp_path / "out/words/manifest.json").unlink()
    preparation, _ = run(make_config(tmp_path / "out", files_source(source), **options))
    assert not preparation.sources[0].is_reused
    run(make_config(tmp_path / "fresh", files_source(source), **options))
    assert hashes(tmp_path / "out") == hashes(tmp_path / "fresh")


def test_only_the_unfinished_source_is_made_again(tmp_path: Path) -> None:
    texts = make_texts(60)
    first = write_texts(tmp_path / "a", texts)
    second = write_texts(tmp_path / "b", [*texts[:30], *make_texts(50, seed=1)])
    sources = files_source(first, "a"), files_source(second, "b")
    for tokenizer in ({"kind": "byte"}, {"kind": "bpe", "vocab_size": 300}):
        config = make_config(tmp_path / "out", *sources, tokenizer=tokenizer)
        run(config)
        before = hashes(tmp_path / "out")
        (tmp_path / "out/b/manifest.json").unlink()
        preparation, _ = run(config)
        assert [source.is_reused for source in preparation.sources] == [True, False]
        assert preparation.sources[1].manifest.funnel["dropped"] == {"duplicate": 30}
        assert hashes(tmp_path / "out") == before


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
    with pytest.raises(DataError, match=r"sources\[0\] 'words': empty: 0 documents kept of 1 \(dropped: 1 too_short\)"):
        run(config)
    assert not (tmp_path / "out/words").exists()
    assert not (tmp_path / "out/.prep-partial").exists()


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
    assert list(preparation.sources[0].manifest.splits) == ["train"]


def test_a_tokenizer_can_be_loaded(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "a", make_texts(60))
    ByteTokenizer().save(tmp_path / "given")
    run(make_config(tmp_path / "out", files_source(source), tokenizer={"load": str(tmp_path / "given")}))
    assert load_tokenizer(tmp_path / "out/tokenizer").kind == "byte"
    with pytest.raises(TokenizerError, match="no such tokenizer"):
        run(make_config(tmp_path / "other", files_source(source), tokenizer={"load": str(tmp_path / "none")}))
    assert not (tmp_path / "other/words").exists()


def test_a_sample_too_small_for_a_vocabulary_is_refused(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "a", ["a", "b", "c"])
    config = make_config(
        tmp_path / "out", files_source(source), tokenizer={"kind": "bpe", "vocab_size": 300}, validation_fraction=0.0
    )
    with pytest.raises(TokenizerError, match="training found nothing beyond single bytes"):
        run(config)


def test_the_tokenizer_sees_training_documents_by_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_prep import tokenizer_stage
    from gptdist.tokenizer.training import train_bpe

    seen: list[str] = []

    def record(texts: Any, vocab_size: int) -> Any:
        seen.extend(texts)
        return train_bpe(seen, vocab_size)

    monkeypatch.setattr(tokenizer_stage, "train_bpe", record)
    first = write_texts(tmp_path / "a", make_texts(200))
    second = write_texts(tmp_path / "b", make_texts(200, seed=1))
    tokenizer = {"kind": "bpe", "vocab_size": 300, "train_bytes": 12_000}
    sources = files_source(first, "a", weight=3.0), files_source(second, "b", weight=1.0)
    run(make_config(tmp_path / "out", *sources, tokenizer=tokenizer))
    sizes = [sum(len(text) for text in seen if text.startswith(f"{seed} ")) for seed in (0, 1)]
    assert 9000 <= sizes[0] < 9400
    assert 3000 <= sizes[1] < 3400
    held_out = set(make_texts(200)) - {text for text in make_texts(200) if text in seen}
    assert held_out, "validation documents must not be trained on"


def test_the_report_counts(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "a", [*make_texts(60), ""])
    preparation, _ = run(make_config(tmp_path / "out", files_source(source)))
    text = report(preparation)
    manifest = DatasetManifest.read(tmp_path / "out/words")
    assert "1 too_short" in text
    assert f"{manifest.splits['train'].tokens:,}" in text
    assert "tokenizer byte with 257 ids" in text
