"""Gopher's rules, each by numbers worked out by hand."""

import random
from collections import Counter

import pytest

from data_prep.quality.gopher import gopher_quality, gopher_repetition
from data_prep.quality.measured import Measured
from data_prep.quality.verdict import Verdict
from data_prep.quality.words import hashes_of
from gptdist.config.prep_rule_sets import GopherQualitySection, GopherRepetitionSection
from tests.unit.data_prep.written_pages import PAGES

SENTENCE = "The old house and the garden have been sold to a family that moved here with a dog of great size."
"""21 words and a full stop."""

NO_QUALITY = dict.fromkeys(
    (
        "min_words",
        "max_words",
        "min_mean_word_length",
        "max_mean_word_length",
        "max_symbols_per_word",
        "max_bullet_lines_fraction",
        "max_ellipsis_lines_fraction",
        "min_alphabetic_words_fraction",
        "min_stop_words",
    )
)
NO_REPETITION = dict.fromkeys(name for name in GopherRepetitionSection.model_fields)


def quality(text: str, language: str | None = None, **thresholds: float | None) -> Verdict | None:
    """Judge by the given rules alone, or by the published ones where none is given."""
    section = GopherQualitySection(**({**NO_QUALITY, **thresholds} if thresholds else {}))
    return gopher_quality(Measured(text), language, section, hashes_of(section.stop_words))


def repetition(text: str, **thresholds: float | None) -> Verdict | None:
    return gopher_repetition(Measured(text), GopherRepetitionSection(**{**NO_REPETITION, **thresholds}))


def distinct(count: int, first: int = 0) -> str:
    """Return ``count`` different words of five letters."""
    letters = "abcdefghij"
    return " ".join("".join(letters[int(digit)] for digit in f"{number:05d}") for number in range(first, first + count))


@pytest.mark.parametrize("language", PAGES)
def test_prose_of_every_script_passes(language: str) -> None:
    for known in (language, None):
        assert quality(PAGES[language], known) is None
    assert gopher_repetition(Measured(PAGES[language]), GopherRepetitionSection()) is None


def test_the_number_of_words_leaves_punctuation_out() -> None:
    assert quality(SENTENCE, min_words=22) == Verdict("min_words", 21, 22)
    assert quality(SENTENCE, min_words=21) is None
    assert quality(SENTENCE, max_words=20) == Verdict("max_words", 21, 20)
    assert quality(SENTENCE, max_words=21) is None


def test_a_short_document_falls_to_the_published_rules() -> None:
    assert quality(SENTENCE) == Verdict("min_words", 21, 50)
    assert quality("") == Verdict("min_words", 0, 50)


def test_mean_word_length() -> None:
    assert quality("a bb ccc, !", min_mean_word_length=2.1) == Verdict("min_mean_word_length", 2.0, 2.1)
    assert quality("a bb ccc, !", min_mean_word_length=2.0) is None
    assert quality("aaaa bbbbbb", max_mean_word_length=4.9) == Verdict("max_mean_word_length", 5.0, 4.9)


def test_mean_word_length_is_not_judged_where_most_words_are_characters() -> None:
    assert quality("今天天气很好 a b", min_mean_word_length=3.0) is None
    assert quality("今天 a b c", min_mean_word_length=3.0) == Verdict("min_mean_word_length", 1.0, 3.0)


def test_symbols_per_word() -> None:
    assert quality("#a #b c d", max_symbols_per_word=0.33) == Verdict("max_hashes_per_word", 2 / 6, 0.33)
    assert quality("a b... c d e…", max_symbols_per_word=0.25) == Verdict("max_ellipses_per_word", 2 / 7, 0.25)
    assert quality("#a #b c d", max_symbols_per_word=0.34) is None


def test_lines_with_bullets_and_ellipses() -> None:
    text = "• one\n  - two\nthree...\r\nfour…  \n- five"
    assert quality(text, max_bullet_lines_fraction=0.5) == Verdict("max_bullet_lines_fraction", 3 / 5, 0.5)
    assert quality(text, max_ellipsis_lines_fraction=0.3) == Verdict("max_ellipsis_lines_fraction", 2 / 5, 0.3)
    assert quality(text, max_bullet_lines_fraction=0.6, max_ellipsis_lines_fraction=0.4) is None


@pytest.mark.parametrize(
    "text", ["a\nb", "a\nb\n", "\na", "a\r\nb", "a\rb\x0bc", "a\u2028b\x85\x85c", "", "\n\n", "a\r"]
)
def test_lines_are_those_of_python(text: str) -> None:
    if text.splitlines():
        verdict = quality(text.replace("a", "-").replace("b", "-"), max_bullet_lines_fraction=0.0)
        bullets = sum(line[:1] in {"a", "b"} for line in text.splitlines())
        expected = Verdict("max_bullet_lines_fraction", bullets / len(text.splitlines()), 0.0) if bullets else None
        assert verdict == expected


def test_words_with_letters() -> None:
    text = "one 2 three , 5"
    assert quality(text, min_alphabetic_words_fraction=0.5) == Verdict("min_alphabetic_words_fraction", 0.4, 0.5)
    assert quality(text, min_alphabetic_words_fraction=0.4) is None


def test_stop_words_are_asked_of_english_alone() -> None:
    expected = Verdict("min_stop_words", 1, 2)
    assert quality("Of the Mice", min_stop_words=2) == expected  # case counts: 'Of' is no stop word
    assert quality("Of the Mice", "en", min_stop_words=2) == expected
    assert quality("Of the Mice", "de", min_stop_words=2) is None
    assert quality("Мы оставили её у себя", min_stop_words=2) is None
    assert quality("of the the", min_stop_words=2) is None


def test_rules_come_in_the_published_order() -> None:
    assert quality("# # #").rule == "min_words"
    assert quality("# a " * 60).rule == "min_mean_word_length"
    assert quality("# word " * 60).rule == "max_hashes_per_word"


def test_nothing_at_all_is_repetitive() -> None:
    assert repetition("") == Verdict("empty", 0, 0)


def test_duplicate_paragraphs() -> None:
    text = "first\n\nsecond one\n\n\nfirst\n\nthird"
    assert repetition(text, max_duplicate_paragraphs_fraction=0.24).value == pytest.approx(1 / 4)
    assert repetition(text, max_duplicate_paragraphs_fraction=0.25) is None
    characters = repetition(text, max_duplicate_paragraph_characters_fraction=0.1)
    assert characters == Verdict("max_duplicate_paragraph_characters_fraction", 5 / len(text), 0.1)


def test_duplicate_lines_are_those_between_runs_of_newlines() -> None:
    text = "same\n\nsame\nother\nsame"
    assert repetition(text, max_duplicate_lines_fraction=0.4) == Verdict("max_duplicate_lines_fraction", 2 / 4, 0.4)
    characters = repetition(text, max_duplicate_line_characters_fraction=0.1)
    assert characters == Verdict("max_duplicate_line_characters_fraction", 8 / len(text), 0.1)
    assert repetition("\na\n", max_duplicate_lines_fraction=0.3).value == pytest.approx(1 / 3)  # '', 'a', ''


def test_the_most_frequent_n_gram_counts_all_its_occurrences_and_spaces() -> None:
    text = f"red fox {distinct(10)} red fox {distinct(10, 10)} red fox"
    expected = 3 * len("red fox") / len(text)
    assert repetition(text, max_top_2_gram_fraction=0.1) == Verdict("max_top_2_gram_fraction", expected, 0.1)
    assert repetition(text, max_top_2_gram_fraction=expected) is None
    assert repetition(text, max_top_3_gram_fraction=0.0).value == 13 / len(text)  # 'red fox aaaaa', once


def test_a_single_n_gram_may_be_most_of_a_short_text() -> None:
    assert repetition("two words", max_top_2_gram_fraction=0.2) == Verdict("max_top_2_gram_fraction", 1.0, 0.2)
    assert repetition("two words", max_top_3_gram_fraction=0.18) is None


@pytest.mark.parametrize("n", range(5, 11))
def test_repeated_n_grams_count_from_their_second_occurrence(n: int) -> None:
    run = distinct(n)
    text = f"{run} {distinct(30, 100)} {run} {distinct(30, 200)} {run}"
    rule = f"max_duplicate_{n}_gram_fraction"
    expected = 2 * 5 * n / len(text)
    assert repetition(text, **{rule: 0.05}) == Verdict(rule, expected, 0.05)
    assert repetition(text, **{rule: expected}) is None
    if n < 10:
        assert repetition(text, **{f"max_duplicate_{n + 1}_gram_fraction": 0.0}) is None


def naive_duplicate(words: list[str], n: int) -> int:
    seen, characters, i = set(), 0, 0
    while i < len(words) - n + 1:
        gram = tuple(words[i : i + n])
        if gram in seen:
            characters += sum(map(len, gram))
            i += n
        else:
            seen.add(gram)
            i += 1
    return characters


@pytest.mark.parametrize("seed", range(5))
def test_n_grams_agree_with_a_plain_count(seed: int) -> None:
    choose = random.Random(seed)
    words = [choose.choice("abcd") * choose.randint(1, 2) for _ in range(300)]
    for _ in range(3):
        words += words[choose.randrange(200) :][: choose.randint(3, 40)]
    text = " ".join(words)
    for n in (2, 3, 4):
        grams = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
        gram, count = grams.most_common(1)[0]
        rule = f"max_top_{n}_gram_fraction"
        assert repetition(text, **{rule: 0.0}) == Verdict(rule, len(gram) * count / len(text), 0.0)
    for n in range(5, 11):
        rule = f"max_duplicate_{n}_gram_fraction"
        characters = naive_duplicate(words, n)
        expected = Verdict(rule, characters / len(text), 0.0) if characters else None
        assert repetition(text, **{rule: 0.0}) == expected


def test_characters_of_scripts_without_spaces_make_n_grams_of_two_or_four() -> None:
    filler = PAGES["zh"].replace("\n", "")
    text = "天上天下唯我独尊者" * 30 + filler  # nine characters over and over
    assert repetition(text, max_duplicate_10_gram_fraction=0.1).rule == "max_duplicate_10_gram_fraction"
    once = "春眠不觉晓处处闻啼" + filler + "春眠不觉晓处处闻啼"
    assert repetition(once, max_duplicate_5_gram_fraction=0.0) is None  # nine characters are not five words
    longer = "春眠不觉晓处处闻啼鸟" + filler + "春眠不觉晓处处闻啼鸟"
    assert repetition(longer, max_duplicate_5_gram_fraction=0.0).value == pytest.approx(10 / len(longer))


@pytest.mark.parametrize(("letters", "is_repeated"), [(19, False), (20, True)])
def test_letters_of_south_east_asia_make_n_grams_of_four(letters: int, is_repeated: bool) -> None:
    run = "กขคงจฉชซญดตถทนบปผฝพฟ"[:letters]
    text = run + PAGES["th"].replace("\n", " ") + run
    verdict = repetition(text, max_duplicate_5_gram_fraction=0.0)
    assert (verdict is not None) == is_repeated


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        (GopherQualitySection(min_words=-1), "q.min_words: must not be negative, got -1"),
        (GopherQualitySection(min_words=9, max_words=8), "q.min_words: 9 is above max_words 8, so nothing passes"),
        (GopherQualitySection(max_bullet_lines_fraction=1.1), "q.max_bullet_lines_fraction: must be 0 … 1, got 1.1"),
        (GopherQualitySection(min_stop_words=9), "q.min_stop_words: 9 is more than the 8 of stop_words"),
        (GopherQualitySection(stop_words=("the", "a b")), "q.stop_words: 'a b' is not one word"),
        (
            GopherQualitySection(stop_words=tuple(f"w{i}" for i in range(65))),
            "q.stop_words: at most 64 different words, got 65",
        ),
        (GopherRepetitionSection(max_top_2_gram_fraction=2.0), "q.max_top_2_gram_fraction: must be 0 … 1, got 2.0"),
    ],
)
def test_problems_of_the_config(section: GopherQualitySection, problem: str) -> None:
    assert any(line.startswith(problem) and "; " in line for line in section.problems("q"))
    assert type(section)().problems("q") == []
