"""What every kind of tokenizer promises."""

from pathlib import Path

import numpy as np
import pytest

from gptdist.errors import TokenizerError
from gptdist.tokenizer.byte import ByteTokenizer
from gptdist.tokenizer.tokenizer import Tokenizer, load_tokenizer
from gptdist.tokenizer.training import train_bpe, train_sentencepiece
from tests.unit.tokenizer.texts import HARD, SPELLED_END, training_texts

KINDS = ["byte", "bpe", "sentencepiece-bpe", "sentencepiece-unigram"]


def make(kind: str) -> Tokenizer:
    texts = training_texts()
    match kind:
        case "byte":
            return ByteTokenizer()
        case "bpe":
            return train_bpe(texts, 700)
        case _:
            return train_sentencepiece(texts, 900, kind.partition("-")[2])


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return make(request.param)


def test_text_survives(tokenizer: Tokenizer) -> None:
    for text, ids in zip(HARD, tokenizer.encode_batch(HARD), strict=True):
        assert tokenizer.decode(ids.tolist()) == text


def test_ids_are_inside_the_vocabulary_and_never_end_a_document(tokenizer: Tokenizer) -> None:
    for ids in tokenizer.encode_batch([*HARD, SPELLED_END, "<|endoftext|>"]):
        assert ids.dtype == np.int32
        assert ids.min() >= 0
        assert ids.max() < tokenizer.vocab_size
        assert tokenizer.eod_id not in ids


def test_text_that_spells_the_end_of_a_document_stays_text(tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode_batch([SPELLED_END])
    assert tokenizer.decode(ids.tolist()) == SPELLED_END


def test_decode_drops_the_end_of_a_document(tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode_batch(["two words"])
    assert tokenizer.decode([*ids.tolist(), tokenizer.eod_id]) == "two words"


def test_byte_lengths_add_up_to_the_text(tokenizer: Tokenizer) -> None:
    lengths = tokenizer.token_byte_lengths()
    assert lengths.shape == (tokenizer.vocab_size,)
    assert lengths.dtype == np.int64
    assert lengths[tokenizer.eod_id] == 0
    texts = [*training_texts(), SPELLED_END]
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert lengths[ids].sum() == len(text.encode())


def test_saved_and_loaded_it_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert (loaded.kind, loaded.vocab_size, loaded.eod_id) == (tokenizer.kind, tokenizer.vocab_size, tokenizer.eod_id)
    assert loaded.fingerprint == tokenizer.fingerprint
    for before, after in zip(tokenizer.encode_batch(HARD), loaded.encode_batch(HARD), strict=True):
        assert np.array_equal(before, after)


def test_transformers_gives_the_same_ids(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    (tmp_path / "tokenizer.json").write_text(tokenizer.huggingface_json(), encoding="utf-8")
    exported = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token="<|endoftext|>")
    assert exported.eos_token_id == tokenizer.eod_id
    assert len(exported) == tokenizer.vocab_size
    texts = [*HARD, *training_texts(), Path(__file__).read_text(encoding="utf-8").replace("<|endoftext|>", "")]
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert exported(text, add_special_tokens=False)["input_ids"] == ids.tolist()
        assert exported.decode(ids.tolist(), clean_up_tokenization_spaces=False) == text


def test_decode_refuses_ids_outside_the_vocabulary(tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match=rf"token id {tokenizer.vocab_size} is outside"):
        tokenizer.decode([tokenizer.vocab_size])
    with pytest.raises(TokenizerError, match="token id -1 is outside"):
        tokenizer.decode([-1])


@pytest.mark.parametrize("kind", KINDS[1:])
def test_training_again_gives_the_same(kind: str) -> None:
    assert make(kind).fingerprint == make(kind).fingerprint


def test_the_spare_tokenizers_differ() -> None:
    assert len({make(kind).fingerprint for kind in KINDS}) == len(KINDS)


def test_a_vocabulary_without_room_for_bytes_is_refused() -> None:
    with pytest.raises(TokenizerError, match=r"256 is too small .* use 257 or more"):
        train_bpe(["a"], 256)
    with pytest.raises(TokenizerError, match=r"511 is too small .* use 512 or more"):
        train_sentencepiece(["a"], 511, "bpe")


def test_sentencepiece_says_why_it_cannot_train() -> None:
    with pytest.raises(TokenizerError, match="sentencepiece cannot train vocab_size 512"):
        train_sentencepiece([], 512, "unigram")
