"""From surviving documents to shards: every document once, in the keyed order, the same bytes however it is run."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.document import Document
from data_prep.hashing import order_keys
from data_prep.packing.runs import RunWriter, runs_of
from data_prep.steps import tokenize
from data_prep.steps.shards import LayoutStep, ShardsStep, finished_packing, finished_splits, read_layout
from data_prep.steps.tokenize import TokenizeStep, token_lengths
from data_prep.steps.tokenizer import TokenizerStep, prepared_tokenizer, tokenizer_folder
from data_prep.training_text import training_text
from data_prep.work import Work
from gptdist.data.provenance import DocumentSpan, read_provenance
from gptdist.data.shards import TokenShard
from gptdist.errors import DataError, TokenizerError
from gptdist.tokenizer.bpe import BpeTokenizer
from gptdist.tokenizer.byte import ByteTokenizer
from gptdist.tokenizer.tokenizer import load_tokenizer
from gptdist.tokenizer.training import train_bpe
from tests.unit.data_prep.made_corpus import hashes, make_texts
from tests.unit.data_prep.made_work import make_work, run_all, run_step

BPE = {"kind": "bpe", "vocab_size": 300}


def documents(count: int, seed: int = 0) -> list[Document]:
    """Return documents, some without address, language or offset."""
    return [
        Document(
            text,
            path=f"file-{seed}.jsonl",
            record=number,
            offset=None if number % 5 == 0 else 100 * number,
            url=None if number % 3 == 0 else f"https://example.org/{seed}/{number}",
            language=("en", "de", None)[number % 3],
        )
        for number, text in enumerate(make_texts(count, seed))
    ]


def three_shards() -> list[tuple[int, list[Document]]]:
    return [(0, documents(90)), (0, documents(70, seed=1)), (1, documents(80, seed=2))]


def written(work: Work, source: int, split: str) -> list[tuple[Document, int]]:
    """Return the documents of a split as its shards hold them, with their number of tokens."""
    tokenizer = prepared_tokenizer(work)
    found = []
    for rank, output in enumerate(read_layout(work)):
        if (output.source, output.split) != (source, split):
            continue
        folder = work.task_folder("shards", rank)
        shard = TokenShard(folder / output.name)
        spans = [DocumentSpan(output.name, number, 0, 0) for number in range(shard.num_documents)]
        for number, origin in enumerate(read_provenance(folder, spans)):
            first, end = shard.document_range(number)
            ids = shard.read(first, end - first).tolist()
            assert ids[-1] == tokenizer.eod_id
            assert origin.tokens == len(ids)
            document = Document(
                tokenizer.decode(ids), origin.path, origin.record, origin.offset, origin.url, language=origin.language
            )
            assert origin.text_digest == document.digest.hex()
            assert origin.text_bytes == len(document.utf8)
            assert origin.piece == 0
            found.append((document, len(ids)))
    return found


@pytest.mark.parametrize("tokenizer", [{"kind": "byte"}, BPE, {"kind": "sentencepiece", "vocab_size": 600}])
def test_every_document_comes_out_once_in_the_keyed_order(tokenizer: dict[str, Any], tmp_path: Path) -> None:
    shards = three_shards()
    work = make_work(tmp_path, shards, tokenizer=tokenizer, shard_tokens=1500)
    run_all(work)
    for source in (0, 1):
        came = {document for number, some in shards if number == source for document in some}
        out = [document for split in ("train", "validation") for document, _ in written(work, source, split)]
        assert len(out) == len(came)
        assert set(out) == came
        for split in ("train", "validation"):
            keys = order_keys(0, b"".join(document.digest for document, _ in written(work, source, split))).tolist()
            assert keys == sorted(keys)
            assert keys


def test_shards_end_with_the_document_that_fills_them(tmp_path: Path) -> None:
    work = make_work(tmp_path, three_shards(), shard_tokens=1500)
    run_all(work)
    entries = finished_splits(work, 0)["train"].shards
    assert len(entries) > 5
    lengths = [tokens for _, tokens in written(work, 0, "train")]
    for entry in entries[:-1]:
        own, lengths = lengths[: entry.documents], lengths[entry.documents :]
        assert sum(own) == entry.tokens >= 1500
        assert sum(own[:-1]) < 1500


def test_markers_count_what_there_is(tmp_path: Path) -> None:
    shards = three_shards()
    work = make_work(tmp_path, shards, shard_tokens=1500)
    run_all(work)
    marker = work.marker("tokenize", 0)
    texts = [document.text for document in shards[0][1]]
    assert sum(found["documents"] for found in marker["splits"].values()) == 90
    assert sum(found["text_bytes"] for found in marker["splits"].values()) == sum(map(len, texts))
    assert sum(found["tokens"] for found in marker["splits"].values()) == sum(map(len, texts)) + 90
    assert {name: found["documents"] for name, found in marker["languages"].items()} == {"": 30, "de": 30, "en": 30}
    assert sum(found["tokens"] for found in marker["languages"].values()) == sum(map(len, texts)) + 90
    assert (marker["unknown_tokens"], marker["engine"]) == (0, "numpy")
    splits = finished_splits(work, 0)
    assert splits["train"].documents + splits["validation"].documents == 160
    assert splits["train"].text_bytes == sum(len(document.utf8) for document, _ in written(work, 0, "train"))
    assert finished_packing(work, 0) is None
    rows, tokens = (found.tolist() for found in token_lengths(work, 1))
    assert dict(zip(rows, tokens, strict=True)) == {
        row: len(document.utf8) + 1 for row, document in enumerate(shards[1][1])
    }


@pytest.mark.parametrize("packing", [None, {"method": "best_fit", "seq_length": 64}])
def test_the_order_of_tasks_does_not_change_a_byte(packing: dict[str, Any] | None, tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        work = make_work(tmp_path / name, three_shards(), tokenizer=BPE, shard_tokens=700, packing=packing)
        run_all(work, backwards=name == "b")
        found.append(hashes(tmp_path / name))
    for one in found:
        del one["plan.json"]  # it names the output folder
    assert found[0] == found[1]
    assert len([name for name in found[0] if name.endswith(".bin")]) > 8


def test_small_runs_give_the_same_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input shard may be one run or many: what is gathered from them is the same."""
    result = []
    for name, limits in (("one", {}), ("many", {"run_tokens_bytes": 1000}), ("rows", {"run_rows_bytes": 900})):
        monkeypatch.setattr(tokenize, "RunWriter", lambda *given, limits=limits: RunWriter(*given, **limits))
        monkeypatch.setattr("data_prep.kept_file._BATCH_DOCUMENTS", 7)
        work = make_work(tmp_path / name, three_shards(), shard_tokens=1500)
        run_all(work)
        result.append(hashes(work.step_folder("shards")))
        runs = work.marker("tokenize", 0)["splits"]["train"]["runs"]
        assert runs == 1 if name == "one" else runs > 4
    assert result[0] == result[1] == result[2]


def test_equal_texts_stay_together_and_keep_their_order(tmp_path: Path) -> None:
    same = [Document("the same text " * 9, "a", record) for record in range(40)]
    other = [replace(document, path="b") for document in same]
    rest = documents(30)
    work = make_work(tmp_path, [(0, [*rest, *same]), (0, other)], shard_tokens=500, validation_fraction=0.0)
    run_all(work)
    out = [(document.path, document.record) for document, _ in written(work, 0, "train") if document.path in "ab"]
    assert out == [(path, record) for path in "ab" for record in range(40)]
    entries = finished_splits(work, 0)["train"].shards
    assert max(entry.documents for entry in entries) >= 80


def test_an_id_above_65535_is_not_wrapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uint16 holds ids below 65,536 and takes any other in silence: the dtype follows the vocabulary."""
    large = BpeTokenizer(_with_large_id(tmp_path), eod_token="<|endoftext|>")
    large.save(tmp_path / "given")
    work = make_work(tmp_path / "w", [(0, documents(30))], tokenizer={"load": str(tmp_path / "given")})
    run_all(work)
    (entry,) = finished_splits(work, 0)["train"].shards
    assert entry.bin_bytes == 4 * entry.tokens
    assert {document.text for document, _ in written(work, 0, "train")} <= {text.text for text in documents(30)}
    shard = TokenShard(work.task_folder("shards", 0) / "train-00000")
    assert shard.dtype == np.int32
    assert 70_000 in shard.read(0, shard.num_tokens)


def _with_large_id(folder: Path) -> str:
    import json

    tree = json.loads(train_bpe(make_texts(50), 300).huggingface_json())
    vocabulary = tree["model"]["vocab"]
    piece = next(piece for piece in vocabulary if len(piece) > 3)
    return json.dumps({**tree, "model": {**tree["model"], "vocab": {**vocabulary, piece: 70_000}}})


def test_ids_outside_the_vocabulary_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = make_work(tmp_path, [(0, documents(30))])
    run_step(work, TokenizerStep())
    monkeypatch.setattr(ByteTokenizer, "vocab_size", 100)
    with pytest.raises(TokenizerError, match=r"token ids 10 … 1\d\d do not fit its vocab_size 100; use another"):
        run_step(work, TokenizeStep())


def test_a_shard_on_which_the_engine_differs_is_done_by_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    result = []
    for name in ("right", "wrong"):
        work = make_work(tmp_path / name, [(0, documents(40))], tokenizer=BPE)
        run_step(work, TokenizerStep())
        if name == "wrong":
            monkeypatch.setattr(BpeTokenizer, "encode_arrow", lambda _, texts: (np.zeros(len(texts), np.int32), None))
            with caplog.at_level(logging.WARNING):
                run_step(work, TokenizeStep())
            assert "input shard 0: the fast engine differs from the reference" in caplog.text
        run_all(work)
        result.append(hashes(work.step_folder("shards")))
        assert work.marker("tokenize", 0)["engine"] == ("reference" if name == "wrong" else "gigatoken")
    assert result[0] == result[1]


def test_a_run_that_was_cut_off_is_named(tmp_path: Path) -> None:
    work = make_work(tmp_path, [(0, documents(60))], shard_tokens=1500)
    for step in (TokenizerStep(), TokenizeStep(), LayoutStep()):
        run_step(work, step)
    (run,) = runs_of([work.task_folder("tokenize", 0)], [1], "train")
    run.tokens_path.write_bytes(run.tokens_path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"train-00000\.tokens: ends early; remove the work folder, and run again"):
        run_step(work, ShardsStep())


def test_a_source_without_documents(tmp_path: Path) -> None:
    work = make_work(tmp_path, [(0, documents(60)), (1, [])])
    for step in (TokenizerStep(), TokenizeStep()):
        run_step(work, step)
    with pytest.raises(DataError, match=r"sources\[1\] 's1': empty: 0 documents kept of 0; name other paths, or"):
        run_step(work, LayoutStep())


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    few = [(0, documents(3))]
    for fraction, message in (
        (
            0.001,
            r"'s0': the validation split is empty, 3 documents kept of 3; raise validation_fraction from 0\.001 to ",
        ),
        (0.999999, r"'s0': no document for training, 3 documents kept of 3; lower validation_fraction \(0\.999999\)"),
    ):
        work = make_work(tmp_path / str(fraction), few, validation_fraction=fraction)
        for step in (TokenizerStep(), TokenizeStep()):
            run_step(work, step)
        with pytest.raises(DataError, match=message):
            run_step(work, LayoutStep())
    work = make_work(tmp_path / "none", few, validation_fraction=0.0)
    run_all(work)
    assert list(finished_splits(work, 0)) == ["train"]


def test_the_fraction_that_is_named_fills_the_split(tmp_path: Path) -> None:
    few = [(0, documents(3))]
    work = make_work(tmp_path / "a", few, validation_fraction=0.001)
    for step in (TokenizerStep(), TokenizeStep()):
        run_step(work, step)
    with pytest.raises(DataError) as error:
        run_step(work, LayoutStep())
    fraction = float(str(error.value).partition("from 0.001 to ")[2].split()[0])
    work = make_work(tmp_path / "b", few, validation_fraction=fraction)
    run_all(work)
    assert finished_splits(work, 0)["validation"].documents >= 1


def test_the_tokenizer_sees_training_documents_by_weight_and_key(tmp_path: Path) -> None:
    shards = [(0, documents(150)), (0, documents(150, seed=1)), (1, documents(200, seed=2))]
    tokenizer = {**BPE, "train_bytes": 12_000}
    work = make_work(tmp_path, shards, tokenizer=tokenizer, weights=[3.0, 1.0])
    seen = list(training_text(work))
    run_all(make_work(tmp_path / "w", shards, tokenizer={"kind": "byte"}))
    expected = []
    for source, part in ((0, 9000), (1, 3000)):
        size = 0
        for document, _ in written(Work(tmp_path / "w"), source, "train"):
            if size < part:
                expected.append(document.text)
                size += len(document.utf8)
    assert seen == expected


def test_a_source_smaller_than_its_part_gives_all_of_it(tmp_path: Path) -> None:
    work = make_work(tmp_path, [(0, documents(20))], tokenizer=BPE, validation_fraction=0.0)
    assert sorted(training_text(work)) == sorted(make_texts(20))


def test_training_twice_gives_the_same_tokenizer(tmp_path: Path) -> None:
    for name in ("a", "b"):
        work = make_work(tmp_path / name, three_shards(), tokenizer=BPE)
        run_step(work, TokenizerStep())
        shutil.move(tokenizer_folder(work), tmp_path / f"{name}-tokenizer")
    assert hashes(tmp_path / "a-tokenizer") == hashes(tmp_path / "b-tokenizer")
    assert load_tokenizer(tmp_path / "a-tokenizer").vocab_size == 300


def test_a_sample_too_small_for_a_vocabulary_is_refused(tmp_path: Path) -> None:
    tiny = [Document(text, "x", number) for number, text in enumerate("abc")]
    work = make_work(tmp_path, [(0, tiny)], tokenizer=BPE, validation_fraction=0.0)
    with pytest.raises(TokenizerError, match=r"training found nothing beyond single bytes \(257 ids\); give more text"):
        run_step(work, TokenizerStep())


def test_a_tokenizer_that_is_not_there(tmp_path: Path) -> None:
    work = make_work(tmp_path, [(0, documents(3))], tokenizer={"load": str(tmp_path / "none")})
    with pytest.raises(TokenizerError, match="no such tokenizer"):
        run_step(work, TokenizerStep())


def test_texts_that_are_odd_come_out_as_they_went_in(tmp_path: Path) -> None:
    odd = ["\x00", "a\x00b", "<|endoftext|>", "\ufeff", "\U0001f389", "\r\n\r\n", "x" * 4000, "é" * 3000]
    came = [Document(text, "odd", number) for number, text in enumerate(odd)]
    work = make_work(tmp_path, [(0, [*came, *documents(40)])], tokenizer=BPE, validation_fraction=0.0)
    run_all(work)
    out = {document.record: document.text for document, _ in written(work, 0, "train") if document.path == "odd"}
    assert out == dict(enumerate(odd))


def test_an_empty_document_is_an_end_alone(tmp_path: Path) -> None:
    came = [Document("", "empty", 0), *documents(40)]
    work = make_work(tmp_path, [(0, came)], tokenizer=BPE, validation_fraction=0.0)
    run_all(work)
    assert [tokens for document, tokens in written(work, 0, "train") if document.path == "empty"] == [1]
