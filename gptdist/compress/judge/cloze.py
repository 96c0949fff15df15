"""Cloze items made of held-out text: the last word of a passage, which stands in the passage before.

Source: the criterion is that of Paperno et al. 2016, "The LAMBADA dataset", section 3: context names the target. Theirs
are chosen by people besides; these are not, so figures are not comparable with those of LAMBADA.
"""

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gptdist.compress.judge.scoring import Continuation

ITEMS = 200
LEAST_LETTERS = 4
"""Of a target: shorter words are articles and prepositions."""

_WORD = re.compile(r"(?<!\w)[^\W\d_]+(?!\w)")


@dataclass(frozen=True)
class ClozeOptions:
    """Which items are made."""

    items: int = ITEMS
    least_words: int = 12
    """Of a passage before its target."""

    most_words: int = 40
    seed: int = 0


@dataclass(frozen=True)
class ClozeItem:
    """A passage, and the word that ends it."""

    context: str
    """Without the space before the target."""

    target: str
    """With the space before it."""


@dataclass(frozen=True)
class ClozeScore:
    """What a model made of items."""

    accuracy: float
    """Fraction whose every token greedy choice hits."""

    perplexity: float
    """e^(mean nats of a target)."""

    items: int


def cloze_items(texts: Sequence[str], options: ClozeOptions | None = None) -> list[ClozeItem]:
    """Return items of ``texts``, chosen by the seed, in the order of the texts; fewer where there are not as many.

    A target has at least ``LEAST_LETTERS`` letters, has one space before it, and stands as a whole word earlier in its
    passage. Passages do not overlap.
    """
    options = options or ClozeOptions()
    found = [item for text in texts for item in _items_of(text, options)]
    if len(found) <= options.items:
        return found
    chosen = random.Random(options.seed).sample(range(len(found)), options.items)
    return [found[index] for index in sorted(chosen)]


def _items_of(text: str, options: ClozeOptions) -> list[ClozeItem]:
    words = list(_WORD.finditer(text))
    items, first = [], 0
    for place, word in enumerate(words):
        if place - first < options.least_words:
            continue
        first = max(first, place - options.most_words)
        if _is_target(text, word) and any(word[0] == earlier[0] for earlier in words[first:place]):
            begin = words[first].start()
            items.append(ClozeItem(text[begin : word.start() - 1], text[word.start() - 1 : word.end()]))
            first = place + 1
    return items


def _is_target(text: str, word: re.Match[str]) -> bool:
    begin = word.start()
    has_space = text[begin - 1 : begin] == " " and not text[begin - 2 : begin - 1].isspace()
    return has_space and len(word[0]) >= LEAST_LETTERS


def score_cloze(
    items: Sequence[ClozeItem], score: Callable[[Sequence[tuple[str, str]]], Sequence[Continuation]]
) -> ClozeScore:
    """Return what ``score``, which gives log-likelihoods of continuations, makes of ``items``; there is one."""
    found = score([(item.context, item.target) for item in items])
    nats = -math.fsum(one.log_likelihood for one in found) / len(found)
    hits = sum(one.is_greedy for one in found)
    return ClozeScore(hits / len(found), math.exp(min(nats, 700.0)), len(found))
