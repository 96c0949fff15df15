"""Articles in fourteen languages, written for the tests: sentences with gaps, filled by a seeded generator.

A sentence never has more than a few words between two gaps, so that two articles that share its frame share hardly any
run of five words: what the tests plant as near-duplicates are the only ones there are.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType

ISO_639_3: Mapping[str, str] = MappingProxyType(
    {"en": "eng", "de": "deu", "fr": "fra", "es": "spa", "ru": "rus", "uk": "ukr", "zh": "zho"}
    | {"ja": "jpn", "ko": "kor", "ar": "ara", "he": "heb", "hi": "hin", "th": "tha", "el": "ell"}
)
LANGUAGES = tuple(ISO_639_3)
WITHOUT_SPACES = frozenset({"zh", "ja", "th"})
_RIGHT_TO_LEFT = frozenset({"ar", "he"})
_FOLDER = Path(__file__).parent / "web_text"
_GAP = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Article:
    """What a page is about, without its menus."""

    language: str
    title: str
    paragraphs: tuple[str, ...]

    @property
    def text(self) -> str:
        """Title and paragraphs, with a blank line between them."""
        return "\n\n".join((self.title, *self.paragraphs)) if self.paragraphs else self.title

    @property
    def direction(self) -> str:
        return "rtl" if self.language in _RIGHT_TO_LEFT else "ltr"

    def with_paragraph(self, text: str, at: int) -> "Article":
        """Return the article with one more paragraph before number ``at``."""
        return replace(self, paragraphs=(*self.paragraphs[:at], text, *self.paragraphs[at:]))


@cache
def phrases(language: str) -> Mapping[str, tuple[str, ...]]:
    """Return a language's words and sentences: person, town, thing, when, title, sentence."""
    sections: dict[str, list[str]] = {}
    for line in (_FOLDER / f"{language}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            name = line.strip("[]")
            sections[name] = []
        elif line:
            sections[name].append(line)
    return MappingProxyType({name: tuple(lines) for name, lines in sections.items()})


def write_article(language: str, rng: random.Random, num_sentences: int | None = None) -> Article:
    """Return an article of 12 to 28 sentences in paragraphs of three to five."""
    frames: list[str] = []
    wanted = num_sentences or rng.randint(12, 28)
    while len(frames) < wanted:
        frames += rng.sample(phrases(language)["sentence"], len(phrases(language)["sentence"]))
    sentences = [fill(frame, language, rng) for frame in frames[:wanted]]
    paragraphs = []
    while sentences:
        size = rng.randint(3, 5)
        paragraphs.append(_joiner(language).join(sentences[:size]))
        sentences = sentences[size:]
    return Article(language, fill(rng.choice(phrases(language)["title"]), language, rng), tuple(paragraphs))


def fill(frame: str, language: str, rng: random.Random) -> str:
    """Return the sentence with its gaps filled and a capital at its beginning."""
    words = phrases(language)

    def filling(gap: re.Match[str]) -> str:
        if gap[1] == "n":
            return str(rng.randint(3, 97))
        return str(rng.randint(1850, 2019)) if gap[1] == "year" else rng.choice(words[gap[1]])

    text = _GAP.sub(filling, frame)
    return text[0].upper() + text[1:]


def edited(article: Article, rng: random.Random, fraction: float = 0.1) -> Article:
    """Return the article with a share of its words replaced, at random positions.

    Where there are no spaces between words, characters are replaced.
    """
    pool = _units(" ".join(write_article(article.language, rng).paragraphs), article.language)
    units = [_units(paragraph, article.language) for paragraph in article.paragraphs]
    places = [(row, column) for row, line in enumerate(units) for column in range(len(line))]
    for row, column in rng.sample(places, round(fraction * len(places))):
        units[row][column] = rng.choice([unit for unit in pool if unit != units[row][column]])
    joiner = "" if article.language in WITHOUT_SPACES else " "
    return replace(article, paragraphs=tuple(joiner.join(line) for line in units))


def _units(text: str, language: str) -> list[str]:
    return list(text) if language in WITHOUT_SPACES else text.split()


def _joiner(language: str) -> str:
    return "" if language in ("zh", "ja") else " "
