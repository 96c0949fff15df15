"""How much texts repeat themselves; words are runs of letters, digits and underscores, so tokenizers do not matter.

Source: rep-n as in Welleck et al. 2020, "Neural Text Generation With Unlikelihood Training", section 6.1; distinct-n as
in Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models", section 5.3.
"""

import re
from collections.abc import Sequence

_WORD = re.compile(r"\w+")


def repeated_n_grams(texts: Sequence[str], n: int) -> float:
    """Return the fraction of n-grams that stood earlier in the same text, over all ``texts``; 0 where there is none."""
    total = repeated = 0
    for text in texts:
        grams = _n_grams(text, n)
        total += len(grams)
        repeated += len(grams) - len(set(grams))
    return repeated / total if total else 0.0


def distinct_n_grams(texts: Sequence[str], n: int) -> float:
    """Return different n-grams / n-grams of all ``texts`` together; 0 where there is none."""
    grams = [gram for text in texts for gram in _n_grams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def _n_grams(text: str, n: int) -> list[tuple[str, ...]]:
    words = _WORD.findall(text)
    return [tuple(words[first : first + n]) for first in range(len(words) - n + 1)]
