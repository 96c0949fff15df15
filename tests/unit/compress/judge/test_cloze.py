"""Cloze items: what makes a target, and what a score is."""

import math

import pytest

from gptdist.compress.judge.cloze import ClozeItem, ClozeOptions, cloze_items, score_cloze
from gptdist.compress.judge.scoring import Continuation

SHORT = ClozeOptions(least_words=3, most_words=6)


def test_the_target_stands_earlier_in_its_passage() -> None:
    text = "the window was open and the window was old"
    assert cloze_items([text], SHORT) == [ClozeItem("the window was open and the", " window")]


@pytest.mark.parametrize(
    "text",
    [
        "the window was open and the windows were old",  # another word
        "the cat was out and the cat was old",  # too few letters
        "the window was open and the\nwindow fell",  # no space before it
        "the window_7 was open and the window was old",  # stands there as a part of a word alone
        "window one two three four five six and the window fell",  # too far before: not in the passage
    ],
)
def test_what_is_no_target(text: str) -> None:
    assert cloze_items([text], SHORT) == []


def test_passages_do_not_overlap_and_the_seed_chooses() -> None:
    text = " ".join(f"{chr(97 + n % 26) * (1 + n // 26)} stone fell and the stone lay" for n in range(40))
    items = cloze_items([text], ClozeOptions(items=1000, least_words=3, most_words=6))
    assert len(items) > 20
    assert text.count(" ") >= sum((item.context + item.target).count(" ") for item in items)
    for item in items:
        assert item.target.strip() in item.context.split()
    some = [cloze_items([text], ClozeOptions(items=5, least_words=3, most_words=6, seed=seed)) for seed in (0, 0, 1)]
    assert some[0] == some[1] != some[2]
    assert all(len(one) == 5 for one in some)


def test_score_is_the_share_of_hits_and_the_perplexity_of_a_word() -> None:
    given = [Continuation(-1.0, is_greedy=True), Continuation(-3.0, is_greedy=False)]
    found = score_cloze([ClozeItem("a", " b")] * 2, lambda pairs: given[: len(pairs)])
    assert (found.accuracy, found.items) == (0.5, 2)
    assert found.perplexity == pytest.approx(math.e**2)
