"""Foreign tokenizers, and folders that are not what they say."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece

from gptdist.errors import TokenizerError
from gptdist.tokenizer.byte import ByteTokenizer
from gptdist.tokenizer.tokenizer import load_tokenizer
from gptdist.tokenizer.training import train_bpe, train_sentencepiece
from tests.unit.tokenizer.texts import HARD, training_texts


@pytest.fixture(scope="module")
def bpe_tree() -> dict[str, Any]:
    return json.loads(train_bpe(training_texts(), 400).huggingface_json())


def write_foreign(folder: Path, tree: dict[str, Any], **changes: Any) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**tree, **changes}), encoding="utf-8")
    return path


def rename_end(tree: dict[str, Any], name: str) -> dict[str, Any]:
    return json.loads(json.dumps(tree).replace("<|endoftext|>", name))


def train_foreign(path: Path, **options: Any) -> Path:
    model = io.BytesIO()
    settings = {"vocab_size": 400, "model_type": "bpe", "byte_fallback": True, "hard_vocab_limit": False, **options}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(" ".join(training_texts()[:10]).split("\n")),
        model_writer=model,
        minloglevel=2,
        **settings,
    )
    path.write_bytes(model.getvalue())
    return path


@pytest.mark.parametrize("end", ["<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>"])
def test_the_usual_ends_are_found(bpe_tree: dict[str, Any], end: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_foreign(tmp_path, rename_end(bpe_tree, end)))
    assert (tokenizer.eod_token, tokenizer.eod_id) == (end, 0)


def test_an_unusual_end_has_to_be_named(bpe_tree: dict[str, Any], tmp_path: Path) -> None:
    path = write_foreign(tmp_path, rename_end(bpe_tree, "<fin>"))
    with pytest.raises(TokenizerError, match=r"no end-of-document token found .* name it as eod_token"):
        load_tokenizer(path)
    assert load_tokenizer(path, eod_token="<fin>").eod_id == 0
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<fin>"}}))
    assert load_tokenizer(tmp_path).eod_token == "<fin>"
    with pytest.raises(TokenizerError, match="has no token '<nope>' to end documents"):
        load_tokenizer(path, eod_token="<nope>")


def test_a_foreign_post_processor_adds_nothing(bpe_tree: dict[str, Any], tmp_path: Path) -> None:
    plain = load_tokenizer(write_foreign(tmp_path, bpe_tree))
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    }
    adding = load_tokenizer(write_foreign(tmp_path, bpe_tree, post_processor=template))
    assert np.array_equal(adding.encode_batch(["a b"])[0], plain.encode_batch(["a b"])[0])
    assert json.loads(adding.huggingface_json())["post_processor"] is None
    assert adding.fingerprint == plain.fingerprint


def test_an_end_that_is_an_ordinary_piece_becomes_special_in_the_export(
    bpe_tree: dict[str, Any], tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(write_foreign(tmp_path, bpe_tree, added_tokens=[]))
    (added,) = json.loads(tokenizer.huggingface_json())["added_tokens"]
    assert (added["id"], added["content"], added["special"]) == (0, "<|endoftext|>", True)


def test_the_vocabulary_reaches_to_the_largest_id(bpe_tree: dict[str, Any], tmp_path: Path) -> None:
    vocabulary = {**bpe_tree["model"]["vocab"], "zzzz": 5000}
    path = write_foreign(tmp_path, bpe_tree, model={**bpe_tree["model"], "vocab": vocabulary})
    assert load_tokenizer(path).vocab_size == 5001


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"type": "WordPiece", "vocab": {"</s>": 0}}}, "model type WordPiece, only BPE is supported"),
        ({"model": {"type": "BPE", "vocab": {"</s>": 0}, "merges": []}, "pre_tokenizer": None}, "neither byte-level"),
        ({"model": {"type": "BPE", "vocab": {"</s>": "x"}, "merges": 3}}, "tokenizers library cannot load it"),
        ({"model": 3}, "not a tokenizer.json"),
    ],
)
def test_a_file_that_cannot_serve_is_refused(
    bpe_tree: dict[str, Any], change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(write_foreign(tmp_path, bpe_tree, **change))


def test_not_json_and_not_utf8_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{")
    with pytest.raises(TokenizerError, match="not JSON"):
        load_tokenizer(path)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(TokenizerError, match="not UTF-8 at byte 7"):
        load_tokenizer(path)


def test_missing_and_ambiguous_paths(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="no such tokenizer"):
        load_tokenizer(tmp_path / "nothing")
    with pytest.raises(TokenizerError, match=r"no tokenizer.json and 0 \.model files"):
        load_tokenizer(tmp_path)


def test_a_foreign_sentencepiece_model(tmp_path: Path) -> None:
    path = train_foreign(tmp_path / "a.model", remove_extra_whitespaces=False, normalization_rule_name="identity")
    tokenizer = load_tokenizer(path)
    assert tokenizer.eod_token == "</s>"
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    assert [ids.tolist() for ids in tokenizer.encode_batch(HARD)] == processor.encode(HARD)
    assert json.loads(tokenizer.huggingface_json())["added_tokens"][0]["id"] == tokenizer.eod_id
    (length,) = (tokenizer.token_byte_lengths()[ids].sum() for ids in tokenizer.encode_batch(["a b"]))
    assert length == len("a b") + 1  # the dummy prefix, as the docstring says


def test_a_normalising_model_cannot_be_exported(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(train_foreign(tmp_path / "a.model"))
    with pytest.raises(TokenizerError, match=r"it normalises text .* it removes extra spaces; train the tokenizer"):
        tokenizer.huggingface_json()


def test_an_inexact_export_is_refused(tmp_path: Path) -> None:
    """Unrounded unigram scores break ties by rounding error, differently in each library."""
    options = {"model_type": "unigram", "remove_extra_whitespaces": False, "normalization_rule_name": "identity"}
    tokenizer = load_tokenizer(
        train_foreign(tmp_path / "a.model", **options, allow_whitespace_only_pieces=True, vocab_size=700)
    )
    with pytest.raises(TokenizerError, match=r"as tokenizer.json it gives other ids, as for"):
        tokenizer.huggingface_json()


def test_a_foreign_file_with_byte_fallback_counts_bytes(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(train_sentencepiece(training_texts(), 900, "bpe").huggingface_json(), encoding="utf-8")
    tokenizer = load_tokenizer(path)
    assert tokenizer.kind == "bpe"
    lengths = tokenizer.token_byte_lengths()
    for text, ids in zip(HARD, tokenizer.encode_batch(HARD), strict=True):
        assert lengths[ids].sum() == len(text.encode())


def test_models_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.model").write_bytes(b"not a model")
    with pytest.raises(TokenizerError, match="not a sentencepiece model"):
        load_tokenizer(tmp_path)
    with pytest.raises(TokenizerError, match="has no piece '<fin>'"):
        load_tokenizer(train_foreign(tmp_path / "a.model"), eod_token="<fin>")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "0" * 64}, "the files were changed; restore them"),
        ({"kind": "magic"}, "kind 'magic' is unknown"),
        ({"format_version": 9}, "format_version 9, this gptdist reads 1; update gptdist"),
        ({"more": 1}, "not a tokenizer record"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    ByteTokenizer().save(tmp_path)
    record = tmp_path / "gptdist_tokenizer.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), **change}))
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(tmp_path)


def test_a_torn_record_and_a_missing_file(bpe_tree: dict[str, Any], tmp_path: Path) -> None:
    load_tokenizer(write_foreign(tmp_path, bpe_tree)).save(tmp_path / "saved")
    (tmp_path / "saved" / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: cannot be read"):
        load_tokenizer(tmp_path / "saved")
    (tmp_path / "saved" / "gptdist_tokenizer.json").write_text('{"kind":')
    with pytest.raises(TokenizerError, match="not a tokenizer record"):
        load_tokenizer(tmp_path / "saved")


def test_one_changed_merge_changes_the_fingerprint(bpe_tree: dict[str, Any], tmp_path: Path) -> None:
    before = load_tokenizer(write_foreign(tmp_path, bpe_tree))
    merges = bpe_tree["model"]["merges"]
    swapped = {**bpe_tree["model"], "merges": [merges[1], merges[0], *merges[2:]]}
    assert load_tokenizer(write_foreign(tmp_path, bpe_tree, model=swapped)).fingerprint != before.fingerprint
