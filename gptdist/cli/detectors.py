"""Detectors of personal data and of unsuitable words, which data preparation has, for the texts that a model writes."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

UNSUITABLE = "unsuitable_words"
"""What counts of the word list are called."""


def personal_data() -> Callable[[str], Mapping[str, int]]:
    """Return what counts personal data in a text, by kind; all kinds that data preparation replaces by default."""
    from data_prep.pii.stage import BANK, CARD, EMAIL, IP, PHONE, SECRET, Finder
    from gptdist.config.prep_privacy import PiiSection

    finder = Finder(PiiSection())
    kinds = (EMAIL, PHONE, IP, CARD, BANK, SECRET)

    def count(text: str) -> Mapping[str, int]:
        found = Counter(span.kind for span in finder.spans(text.encode(errors="replace")))
        return {kind: found[kind] for kind in kinds}

    return count


def unsuitable_words(lists: Sequence[Path] = ()) -> Callable[[str], Mapping[str, int]]:
    """Return what counts the entries of word lists in a text.

    Args:
        lists: files with a word or phrase a line, in place of the small English one that comes with gptdist.

    Raises:
        DataError: a list cannot be read or has no entry.
    """
    from data_prep.quality import word_list

    shipped = Path(word_list.__file__).with_name("unsuitable_words.txt")
    words = word_list.load_word_list(tuple(lists) or (shipped,))
    return lambda text: {UNSUITABLE: word_list.count_matches(text, words)[0]}
