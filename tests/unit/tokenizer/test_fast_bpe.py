"""The fast engine gives the ids of the ``tokenizers`` library, or is not used."""

import json
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest

from gptdist.tokenizer import fast_bpe
from gptdist.tokenizer.arrow import text_arrays
from gptdist.tokenizer.bpe import BpeTokenizer
from gptdist.tokenizer.byte import ByteTokenizer
from gptdist.tokenizer.checked_texts import CHECKED_TEXTS
from gptdist.tokenizer.fast_bpe import FastBpe, open_fast, source_without_specials, word_cuts
from gptdist.tokenizer.training import train_bpe, train_sentencepiece
from tests.unit.tokenizer.texts import HARD, SPELLED_END, training_texts

SCRIPTS = {
    "Latin": "The quick brown fox doesn't jump over 12 lazy dogs; naïve façade, Žluťoučký kůň úpěl ďábelské ódy.",
    "Cyrillic": "Съешь же ещё этих мягких французских булок, да выпей чаю. Її ґанок.",
    "Greek": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία, 3,5 φορές.",
    "Han": "天地玄黄,宇宙洪荒。日月盈昃,辰宿列張。",
    "Kana": "いろはにほへと ちりぬるを。コンピュータ、データ。",
    "Hangul": "다람쥐 헌 쳇바퀴에 타고파. 키스의 고유조건은",
    "Arabic": "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر، ١٢٣.",
    "Hebrew": "דג סקרן שט בים מאוכזב ולפתע מצא חברה",
    "Devanagari": "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश। १२३",
    "Thai": "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน",
}
ODD = ["", "\x00", "a\x00b\x00", "\U0001f469\u200d\U0001f4bb\U0001f1eb\U0001f1f7", "é" * 3000, "x" * 50_000, " " * 9999]


def random_texts(count: int, seed: int) -> list[str]:
    """Return texts that mix the words of all scripts with spaces, line ends, digits and spelled special tokens."""
    choose = random.Random(seed)
    words = [word for text in SCRIPTS.values() for word in text.split()] + [
        SPELLED_END,
        "\n",
        "\t",
        "  ",
        "7",
        "'s",
        "…",
    ]
    return ["".join(choose.choice(words) + choose.choice(["", " ", "\n"]) for _ in range(60)) for _ in range(count)]


def arrow(texts: list[str]) -> Any:
    return pa.array(texts, pa.large_string())


def assert_same(tokenizer: BpeTokenizer, texts: list[str]) -> None:
    ids, lengths = tokenizer.encode_arrow(arrow(texts))
    expected = tokenizer.encode_by_reference(texts)
    assert ids.dtype == np.int32
    assert lengths.dtype == np.int64
    assert lengths.tolist() == [len(one) for one in expected]
    assert np.array_equal(ids, np.concatenate(expected))


@pytest.fixture(scope="module")
def tokenizer() -> BpeTokenizer:
    texts = [*training_texts(), *SCRIPTS.values(), *random_texts(200, seed=1)]
    return train_bpe(texts, 2500)


@pytest.fixture(scope="module")
def tree(tokenizer: BpeTokenizer) -> dict[str, Any]:
    return json.loads(tokenizer.huggingface_json())


def foreign(tree: dict[str, Any], **changes: Any) -> BpeTokenizer:
    return BpeTokenizer(json.dumps({**tree, **changes}), eod_token="<|endoftext|>")


@pytest.mark.parametrize("script", SCRIPTS)
def test_ids_are_those_of_the_reference_in_ten_scripts(script: str, tokenizer: BpeTokenizer) -> None:
    assert tokenizer._fast is not None
    assert_same(tokenizer, [SCRIPTS[script], SCRIPTS[script] * 30, SCRIPTS[script][::-1]])


def test_ids_are_those_of_the_reference_on_what_is_odd(tokenizer: BpeTokenizer) -> None:
    assert_same(tokenizer, [*ODD, *HARD, SPELLED_END, *CHECKED_TEXTS])
    assert_same(tokenizer, random_texts(100, seed=2))
    assert_same(tokenizer, [""])
    ids, lengths = tokenizer.encode_arrow(arrow([]))
    assert (ids.size, lengths.size) == (0, 0)


def test_another_pattern_between_words(tree: dict[str, Any]) -> None:
    """Llama 3's regular expression, which numbers and line ends split otherwise."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    found = foreign(tree, pre_tokenizer={"type": "Sequence", "pretokenizers": [split, level]})
    assert found._fast is not None
    assert_same(found, [*ODD, *HARD, *SCRIPTS.values(), *random_texts(50, seed=3)])


def test_special_tokens_in_text_stay_text(tokenizer: BpeTokenizer) -> None:
    ids, _ = tokenizer.encode_arrow(arrow([SPELLED_END, "<|endoftext|>"]))
    assert tokenizer.eod_id not in ids
    assert tokenizer.decode(ids.tolist()) == SPELLED_END + "<|endoftext|>"


def test_an_added_token_that_is_not_special_is_found_in_text(tree: dict[str, Any]) -> None:
    added = {**tree["added_tokens"][0], "id": 2500, "content": "@@name@@", "special": False}
    found = foreign(tree, added_tokens=[*tree["added_tokens"], added])
    assert_same(found, ["a @@name@@ b", "@@name@@", SPELLED_END])
    assert 2500 in found.encode_arrow(arrow(["a @@name@@ b"]))[0]


def test_slices_are_read_where_they_are(tokenizer: BpeTokenizer) -> None:
    texts = [*HARD, SPELLED_END, "", *ODD[:4]]
    ids, lengths = tokenizer.encode_arrow(arrow(texts)[3:9])
    expected = tokenizer.encode_by_reference(texts[3:9])
    assert np.array_equal(ids, np.concatenate(expected))
    assert lengths.tolist() == [len(one) for one in expected]


def test_much_text_goes_through_the_fast_engine(tokenizer: BpeTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = random_texts(300, seed=4)
    expected = tokenizer.encode_by_reference(texts)
    monkeypatch.setattr(tokenizer, "encode_by_reference", None)
    found = tokenizer.encode_batch(texts)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    assert sum(map(len, texts)) > 1 << 16


def test_long_texts_are_cut_between_words_only(tokenizer: BpeTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_bpe, "_CALL_BYTES", 64)
    texts = [
        "",
        "word and word " * 30,
        "",
        "",
        *HARD,
        *SCRIPTS.values(),
        "x" * 500,
        SPELLED_END * 9,
        *random_texts(9, 5),
    ]
    assert tokenizer._fast is not None
    pieces, _ = tokenizer._fast._cut(*text_arrays(arrow(texts)))
    assert pieces.size > len(texts) + 10
    assert_same(tokenizer, texts)
    assert_same(tokenizer, texts[1:])


def test_where_a_text_may_be_cut() -> None:
    text = b"ab cd  ef 1 g. h i" + "é é ".encode() + b"jk lm"
    cuts = word_cuts(np.frombuffer(text, dtype=np.uint8), 0, len(text), 4)
    assert [text[cut - 1 : cut + 2] for cut in cuts] == [b"b c", b"h i", b"k l"]


def test_a_vocabulary_across_words_is_not_cut(tree: dict[str, Any]) -> None:
    reference = foreign(tree).encode_by_reference
    assert fast_bpe._cuts_words(tree, reference)
    vocabulary = {**tree["model"]["vocab"], "a\u0120b": 2500}
    assert not fast_bpe._cuts_words({**tree, "model": {**tree["model"], "vocab": vocabulary}}, reference)
    prefixed = foreign(tree, normalizer={"type": "Prepend", "prepend": "_"})
    assert not fast_bpe._cuts_words(tree, prefixed.encode_by_reference)


def test_the_engine_is_made_anew_before_its_cache_fills_the_memory(
    tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_bpe, "_MOST_GROWTH_BYTES", 8 << 20)
    fast = FastBpe(source_without_specials(tree), cuts_words=True)
    made = []
    monkeypatch.setattr(fast, "_make", lambda make=fast._make: (made.append(1), make()))
    random_letters = np.random.default_rng(0)
    begin = psutil.Process().memory_info().rss
    for _ in range(16):
        letters = random_letters.integers(ord("a"), ord("z") + 1, size=1 << 20, dtype=np.uint8)
        letters[random_letters.integers(0, letters.size, size=letters.size // 8)] = ord(" ")
        fast.encode(arrow([letters.tobytes().decode()]))
    assert len(made) >= 3
    assert psutil.Process().memory_info().rss - begin < 80 << 20


def test_an_engine_that_differs_is_not_used(tree: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = foreign(tree)
    swapped = {**tree, "model": {**tree["model"], "merges": tree["model"]["merges"][:50]}}
    with caplog.at_level(logging.WARNING):
        assert open_fast(swapped, tokenizer.encode_by_reference, "a.json") is None
    assert "a.json: gigatoken gives other ids than the tokenizers library" in caplog.text


def test_a_file_that_the_engine_does_not_take(tree: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert open_fast({**tree, "model": {"type": "WordPiece", "vocab": {}}}, foreign(tree).encode_batch, "x") is None
    assert "x: gigatoken does not take it" in caplog.text


def test_without_the_engine_the_library_does_it(
    tree: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gigatoken.gigatoken_rs", None)
    with caplog.at_level(logging.WARNING):
        found = foreign(tree)
        assert_same(found, [*HARD, ""])
    assert found._fast is None
    assert "gigatoken is not installed" in caplog.text
    assert len(found.encode_batch(random_texts(300, seed=4))) == 300


def test_every_kind_gives_the_same_flat_and_one_by_one(tmp_path: Path) -> None:
    texts = [*HARD, "", SPELLED_END]
    for tokenizer in (ByteTokenizer(), train_sentencepiece(training_texts(), 900, "unigram")):
        ids, lengths = tokenizer.encode_arrow(arrow(texts)[2:])
        expected = tokenizer.encode_batch(texts[2:])
        assert ids.dtype == np.int32
        assert lengths.tolist() == [len(one) for one in expected]
        assert np.array_equal(ids, np.concatenate(expected))
        assert np.array_equal(np.concatenate(tokenizer.encode_by_reference(texts[2:])), ids)
        assert tokenizer.encode_arrow(arrow([]))[0].size == 0


def test_the_id_of_what_is_unknown(tree: dict[str, Any]) -> None:
    assert ByteTokenizer().unknown_id is None
    assert foreign(tree).unknown_id is None
    assert train_sentencepiece(training_texts(), 900, "bpe").unknown_id == 0
