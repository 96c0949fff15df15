"""Every kind of tokenizer comes out of its exported files with the same ids."""

import json
import logging
import warnings
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from gptdist.compress.hf_tokenizer import huggingface_tokenizer, require_same_ids, tokenizer_files
from gptdist.errors import ExportError
from gptdist.model.hf_config import huggingface_config
from gptdist.tokenizer.byte import ByteTokenizer
from gptdist.tokenizer.tokenizer import Tokenizer
from gptdist.tokenizer.training import train_bpe, train_sentencepiece
from tests.support.datasets import make_documents
from tests.unit.compress.small_models import llama, trained

TEXTS = [
    "def área(r):\n\treturn  3.14 *   r ** 2  # 🙂\r\n",
    " leading, trailing ",
    "don't it's 12345 — ½ ﬁ ①",
    "日本語 हिन्दी العربية",
]
MAKERS = {
    "byte": ByteTokenizer,
    "bpe": lambda: train_bpe([*make_documents(200, seed=0), *TEXTS], 400),
    "sentencepiece-bpe": lambda: train_sentencepiece([*make_documents(200, seed=0), *TEXTS], 600, "bpe"),
    "sentencepiece-unigram": lambda: train_sentencepiece([*make_documents(200, seed=0), *TEXTS], 600, "unigram"),
}


@pytest.fixture(scope="module", params=MAKERS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return MAKERS[request.param]()


@pytest.mark.parametrize("model", [trained(), llama()], ids=["gpt2", "llama"])
def test_folder_gives_the_same_ids(
    model: object, tokenizer: Tokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With a config.json beside it: transformers then might take the family's own tokenizer class."""
    config = huggingface_config(model.config, eod_id=tokenizer.eod_id)  # type: ignore[attr-defined]
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name, text in tokenizer_files(tokenizer, 24).items():
        (tmp_path / name).write_text(text, encoding="utf-8")

    logging.getLogger("transformers").propagate = True
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "transformers"):
        warnings.simplefilter("error")
        loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert caplog.text == ""
    for text, ours in zip(TEXTS, tokenizer.encode_batch(TEXTS), strict=True):
        assert loaded(text)["input_ids"] == ours.tolist()
        assert loaded.decode(ours.tolist()) == text
    assert (loaded.eos_token, loaded.eos_token_id) == (tokenizer.eod_token, tokenizer.eod_id)
    assert len(loaded) == tokenizer.vocab_size


def test_in_memory_gives_the_same_ids(tokenizer: Tokenizer) -> None:
    loaded = huggingface_tokenizer(tokenizer, 24)
    assert [loaded(text)["input_ids"] for text in TEXTS] == [ids.tolist() for ids in tokenizer.encode_batch(TEXTS)]
    assert loaded.decode([*tokenizer.encode_batch(["a"])[0], tokenizer.eod_id], skip_special_tokens=True) == "a"


def test_samples_across_documents_are_compared(tokenizer: Tokenizer) -> None:
    eod = tokenizer.eod_id
    first, second = (ids.tolist() for ids in tokenizer.encode_batch(TEXTS[:2]))
    require_same_ids(tokenizer, huggingface_tokenizer(tokenizer, 24), [[*first, eod, *second, eod]], "out")


def test_other_end_of_text_is_refused() -> None:
    bpe = train_bpe(make_documents(50, seed=0), 300)
    with pytest.raises(ExportError, match="out: the exported tokenizer's end-of-text is 256, not 0"):
        require_same_ids(bpe, huggingface_tokenizer(ByteTokenizer(), 24), [[1, 2]], "out")


def test_text_that_spells_the_end_of_a_document_is_no_difference() -> None:
    """It is plain text to our tokenizers and a special token to transformers; neither is wrong."""
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode_batch(["a <|endoftext|> b"])[0].tolist()
    require_same_ids(tokenizer, huggingface_tokenizer(tokenizer, 24), [ids], "out")
