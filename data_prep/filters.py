"""Plain rules on size and letters; the first that a document falls to is written down with its number."""

from collections.abc import Callable, Iterator

import numpy as np

from data_prep.account import Account
from data_prep.document import Document, Place, Stage
from data_prep.quality.characters import LETTER, SPACE
from data_prep.quality.measured import Measured
from gptdist.config.prep_filters import FilterSection

Rule = tuple[str, str, Callable[[str], float], float, bool]
"""Name, what is measured, how, the threshold, and whether that is the least (or the most)."""


def filter_stage(section: FilterSection, place: Place, account: Account) -> Stage:
    """Return the stage that drops what a rule of ``section`` refuses."""
    rules = _rules(section)

    def stage(documents: Iterator[Document]) -> Iterator[Document]:
        for document in documents:
            for name, quantity, measure, threshold, is_least in rules:
                value = measure(document.text)
                if value < threshold if is_least else value > threshold:
                    account.drop(document, "filters", name, **{quantity: value, "threshold": threshold})
                    break
            else:
                yield document

    return stage


def _rules(section: FilterSection) -> list[Rule]:
    rules: list[Rule] = [("too_short", "characters", _stripped_length, section.min_characters, True)]
    if section.max_characters is not None:
        rules.append(("too_long", "characters", len, section.max_characters, False))
    if section.max_line_characters is not None:
        rules.append(("long_line", "characters", longest_line, section.max_line_characters, False))
    if section.min_alphabetic_fraction > 0.0:
        rules.append(("not_alphabetic", "fraction", alphabetic_fraction, section.min_alphabetic_fraction, True))
    return rules


def _stripped_length(text: str) -> int:
    return len(text.strip())


def longest_line(text: str) -> int:
    """Return the number of characters of the longest line."""
    return max(map(len, text.splitlines()), default=0)


def alphabetic_fraction(text: str) -> float:
    """Return the share of letters among the characters that are not white space; 0 where there are none.

    Of a text longer than ``MOST_CHARACTERS`` the beginning decides.
    """
    kinds = Measured(text).kinds
    visible = np.count_nonzero(kinds & SPACE == 0)
    return float(np.count_nonzero(kinds & LETTER) / visible) if visible else 0.0
