"""Words as spaCy's English tokenizer cuts them; the expected ones are its answers."""

# ruff: noqa: E501  (marks and letters of other scripts are what is tested)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.quality.characters import (
    BREAK,
    CODE_POINTS,
    LETTER,
    SPACE,
    UNSPACED,
    WIDE,
    character_table,
    code_points,
)
from data_prep.quality.measured import MOST_CHARACTERS, Measured
from data_prep.quality.word_counts import WordCounts, count_different, count_sentences
from data_prep.quality.words import hashes_of


def words_of(text: str) -> list[str]:
    measured = Measured(text)
    return [text[begin:end] for begin, end in zip(*measured.words, strict=True)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("plain words  here\n\ttoo", ["plain", "words", "here", "too"]),
        ("Stop, (really) “now”!", ["Stop", ",", "(", "really", ")", "“", "now", "”", "!"]),
        ("wait... what?!", ["wait", "...", "what", "?", "!"]),
        ("well-known 3-4 a/b x:y", ["well", "-", "known", "3", "-", "4", "a", "/", "b", "x", ":", "y"]),
        ("state—of—art one--two", ["state", "—", "of", "—", "art", "one", "--", "two"]),
        ("don't I'm they're we've he'd she'll", ["do", "n't", "I", "'m", "they", "'re", "we", "'ve", "he", "'d", "she", "'ll"]),
        ("don’t John’s dogs' John's", ["do", "n’t", "John", "’s", "dogs", "'", "John", "'s"]),
        ("e.g. this, i.e. that vs. Dr. No", ["e.g.", "this", ",", "i.e.", "that", "vs.", "Dr.", "No"]),
        ("end.Start the U.S. NATO. x. 10.", ["end", ".", "Start", "the", "U.S.", "NATO", ".", "x.", "10", "."]),
        ("5km 10.5% $20 20€ +5 C++ 3+", ["5", "km", "10.5", "%", "$", "20", "20", "€", "+5", "C++", "3", "+"]),
        ("see http://foo.com/a-b, mail me@foo.org or foo.com.", ["see", "http://foo.com/a-b", ",", "mail", "me@foo.org", "or", "foo.com", "."]),
        ("f(x)=y; <b>tag</b> std::vector [1]", ["f(x)=y", ";", "<", "b", ">", "tag</b", ">", "std::vector", "[", "1", "]"]),
        ("a,b 1,000 #tag _x_ 'quoted'", ["a", ",", "b", "1,000", "#", "tag", "_", "x", "_", "'", "quoted", "'"]),
        ("...leading .NET trailing…", ["...", "leading", ".NET", "trailing", "…"]),
        ("-dash- ~tilde~ @at |bar|", ["-dash-", "~tilde~", "@at", "|bar|"]),
        ("a--b--- ((nested))", ["a", "--", "b---", "(", "(", "nested", ")", ")"]),
    ],
)  # fmt: skip
def test_words_are_cut_as_spacy_does(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_a_character_of_a_script_without_spaces_is_a_word() -> None:
    assert words_of("今天很好。Hello世界") == ["今", "天", "很", "好", "。", "Hello", "世", "界"]
    assert words_of("ที่นี่ดี") == ["ที่", "นี่", "ดี"]  # marks stay with their letter
    assert words_of("カタカナ、한국어 말") == ["カ", "タ", "カ", "ナ", "、", "한국어", "말"]


@given(st.text(alphabet=st.sampled_from("ab.,-'\"!:/@1$ \n今ที…’éA"), max_size=60))
def test_words_are_in_order_and_hold_every_visible_character_once(text: str) -> None:
    measured = Measured(text)
    starts, ends = measured.words
    inside = [i for begin, end in zip(starts, ends, strict=True) for i in range(begin, end)]
    assert inside == [i for i, character in enumerate(text) if not character.isspace()]


def test_counts_of_words() -> None:
    counts = Measured("Three words, 2024 今天 กา !! Ünïcode").counts
    assert counts == WordCounts(
        words=11,  # Three words , 2024 今 天 ก า ! ! Ünïcode
        no_symbols=8,
        columns=5 + 5 + 4 + 7,
        unspaced=4,
        south_east_asian=2,
        alphabetic=7,
        latin=3,
    )


def test_wide_characters_count_as_two_columns() -> None:
    assert Measured("한국어 abc").counts.columns == 6 + 3


def test_different_words_are_counted_once_each() -> None:
    hashes = Measured("the cat and the dog and of").hashes
    assert count_different(hashes, hashes_of(("the", "and", "with", "The"))) == 2
    assert count_different(hashes, hashes_of(())) == 0


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", 0),
        ("One", 1),
        ("One. Two! Three? ", 3),
        ("Dots... do not end. Mr. Smith agrees.", 2),
        ("A (short.) B", 2),
        ("First line\nSecond line\n\nThird", 3),
        ("今天很好。明天呢？好！", 3),
        ("यह एक है। वह दो है।", 2),
        ("هل أنت هنا؟ نعم.", 2),
        ("ไปตลาด ซื้อขนม กลับบ้าน", 3),
    ],
)
def test_sentences(text: str, sentences: int) -> None:
    measured = Measured(text)
    assert count_sentences(measured.codes, measured.kinds, *measured.words) == sentences


def test_the_table_agrees_with_python_on_letters_and_spaces() -> None:
    table = character_table()
    some = [*range(0x3000), *range(0x4E00, 0x4F00), 0xFEFF, 0x1F600, 0x20000, 0x10FFFF]
    assert len(table) == CODE_POINTS
    assert [bool(table[code] & LETTER) for code in some] == [chr(code).isalpha() for code in some]
    assert [bool(table[code] & SPACE) for code in some] == [chr(code).isspace() for code in some]
    breaks = [code for code in some if len(f"a{chr(code)}b".splitlines()) > 1]
    assert [code for code in some if table[code] & BREAK] == breaks


def test_the_table_knows_scripts() -> None:
    table = character_table()
    assert all(table[ord(letter)] & UNSPACED for letter in "漢字かなカナไทยລາວខ្មែរမြန်မာ" if letter.isalpha())
    assert not any(table[ord(letter)] & UNSPACED for letter in "aяب한हελא。、฿")
    assert [bool(table[ord(letter)] & WIDE) for letter in "漢한Ａaя"] == [True, True, True, False, False]


def test_lone_surrogates_are_let_through() -> None:
    assert code_points("a\ud800b").tolist() == [0x61, 0xD800, 0x62]
    assert words_of("a\ud800 b") == ["a\ud800", "b"]


def test_no_more_of_a_long_text_is_looked_at() -> None:
    assert len(Measured("x" * (MOST_CHARACTERS + 5)).codes) == MOST_CHARACTERS


def test_hashes_are_64_bits_and_differ() -> None:
    hashes = Measured(" ".join(f"w{i}" for i in range(20_000))).hashes
    assert hashes.dtype == np.uint64
    assert len(np.unique(hashes)) == 20_000
    assert len(np.unique(hashes & np.uint64(0xFFFFFFFF))) > 19_990
