"""A text on which several rule sets measure: its characters and words are found once."""

from functools import cached_property

from data_prep.quality.characters import character_table, code_points
from data_prep.quality.lines import find_newlines
from data_prep.quality.word_counts import WordCounts, count_words
from data_prep.quality.words import Codes, Hashes, Kinds, Places, classify, english_lexicon, find_words, hash_words

MOST_CHARACTERS = 1 << 21
"""Rules look at no more of a text than this, so that memory stays bounded: about 100 MB at worst."""


class Measured:
    """A text and what rules need of it.

    Args:
        text: only its first ``MOST_CHARACTERS`` are looked at.
    """

    def __init__(self, text: str) -> None:
        self.text = text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS]

    @cached_property
    def codes(self) -> Codes:
        """The characters as numbers."""
        return code_points(self.text)

    @cached_property
    def kinds(self) -> Kinds:
        """The bits of each character."""
        return classify(self.codes, character_table())

    @cached_property
    def newlines(self) -> Places:
        """Where the newlines are."""
        return find_newlines(self.codes)

    @cached_property
    def words(self) -> tuple[Places, Places]:
        """Where the words begin and end."""
        return find_words(self.codes, self.kinds, english_lexicon())

    @cached_property
    def hashes(self) -> Hashes:
        """A hash of each word."""
        return hash_words(self.codes, *self.words)

    @cached_property
    def counts(self) -> WordCounts:
        """Counts of the words, stop words aside."""
        return WordCounts(*count_words(self.kinds, *self.words))
