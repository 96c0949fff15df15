"""Plain rules on size and letters."""

import json

import pytest

from data_prep.account import Account
from data_prep.document import Document, Place
from data_prep.filters import alphabetic_fraction, filter_stage, longest_line
from gptdist.config.prep_filters import FilterSection


@pytest.mark.parametrize(
    ("section", "text", "outcome", "numbers"),
    [
        ({}, " \n", "filters.too_short", {"characters": 0, "threshold": 1}),
        ({"min_characters": 3}, " ab\n", "filters.too_short", {"characters": 2, "threshold": 3}),
        ({"min_characters": 2}, " ab\n", None, None),
        ({"max_characters": 3}, "abcd", "filters.too_long", {"characters": 4, "threshold": 3}),
        ({"max_characters": 4}, "abcd", None, None),
        ({"max_line_characters": 2}, "a\nbcd\r\ne", "filters.long_line", {"characters": 3, "threshold": 2}),
        ({"max_line_characters": 3}, "a\nbcd\r\ne", None, None),
        ({"min_alphabetic_fraction": 0.5}, "a 1 2", "filters.not_alphabetic", {"fraction": 1 / 3, "threshold": 0.5}),
        ({"min_alphabetic_fraction": 0.5}, "語 と 1", None, None),
    ],
)
def test_rules(section: dict[str, float], text: str, outcome: str | None, numbers: dict[str, float] | None) -> None:
    account = Account("here")
    stage = filter_stage(FilterSection(**section), Place(0, 1), account)
    document = Document(text, "a")
    assert list(account.through("filters", stage, iter([document]))) == ([document] if outcome is None else [])
    assert [row.outcome for row in account.rows] == ([] if outcome is None else [outcome])
    assert [json.loads(row.numbers or "") for row in account.rows] == ([] if numbers is None else [numbers])


def test_the_first_rule_is_written_down() -> None:
    account = Account("here")
    section = FilterSection(min_characters=5, min_alphabetic_fraction=0.9)
    assert list(filter_stage(section, Place(0, 1), account)(iter([Document("12", "a")]))) == []
    assert [row.outcome for row in account.rows] == ["filters.too_short"]


def test_measures() -> None:
    assert alphabetic_fraction(" \t") == 0.0
    assert longest_line("") == 0
