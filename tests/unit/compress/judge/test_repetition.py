"""Repetition of texts whose figures are counted by hand."""

import pytest

from gptdist.compress.judge.repetition import distinct_n_grams, repeated_n_grams


def test_figures_of_known_texts() -> None:
    # pairs: the cat, cat the, the cat, cat sat: 1 of 4 stood before
    assert repeated_n_grams(["the cat the cat sat"], 2) == pytest.approx(1 / 4)
    assert repeated_n_grams(["a a a a a"], 3) == pytest.approx(2 / 3)
    assert distinct_n_grams(["the cat the cat sat"], 1) == pytest.approx(3 / 5)
    assert distinct_n_grams(["the cat", "the cat"], 2) == pytest.approx(1 / 2)


def test_texts_do_not_repeat_each_other_and_spaces_do_not_count() -> None:
    assert repeated_n_grams(["the cat", "the cat"], 2) == 0.0
    assert repeated_n_grams(["the  cat,\nthe cat"], 2) == pytest.approx(1 / 3)
    assert (repeated_n_grams(["", "one"], 2), distinct_n_grams([""], 1)) == (0.0, 0.0)
