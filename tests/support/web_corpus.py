"""A corpus of web pages that the tests write themselves, with everything in it listed.

The same pages come in every format, cut into three files (folders for ``html``) in the order of ``Corpus.pages``;
names sort in this order, so that an original always stands before its duplicates. A seed and a number of pages give
the same bytes every time.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.support.broken_web import Broken, write_broken
from tests.support.web_archives import WRITERS
from tests.support.web_page import WebPage, make_page
from tests.support.web_phrases import LANGUAGES, WITHOUT_SPACES, Article, edited, write_article
from tests.support.web_plants import BLOCKED_DOMAINS, PLANTS, UNSUITABLE_WORDS

FORMATS = ("warc", "wet", "jsonl", "parquet", "html")
FILES_PER_FORMAT = 3
DUPLICATES = ("exact_duplicate", "near_duplicate")
LEAK = "leak"
_KINDS = (*PLANTS, *DUPLICATES, LEAK)
_PAGES_A_PLANT = 80
LEAST_PAGES = 3 * len(_KINDS)
_ENGLISH_FRACTION = 0.3
_EVALUATION = Path(__file__).parent / "web_text" / "evaluation.txt"
_LEAKED_WORDS, _LEAKED_CHARACTERS = 16, 40


@dataclass(frozen=True)
class Corpus:
    """What was written where, and what is in it."""

    folder: Path
    pages: tuple[WebPage, ...]
    files: Mapping[str, tuple[Path, ...]]
    """Format -> its files; of ``html`` folders."""

    originals: Mapping[str, str]
    """URL of a duplicate -> URL of the page that it repeats, which comes before it."""

    strings: Mapping[str, tuple[str, ...]]
    """URL -> strings that are planted in the page: personal data, words, leaked passages."""

    not_html: tuple[str, ...]
    """URLs of records of the WARC files that hold no page."""

    evaluation: Path
    """An evaluation set (keys ``question``, ``answer``), of which passages leak into pages."""

    blocklist: Path
    unsuitable_words: Path
    broken: Mapping[str, Broken] = field(default_factory=dict)
    """Kind of damage -> file with such records; not among ``files``."""

    def planted(self, kind: str) -> tuple[str, ...]:
        """Return the URLs of the pages of a kind, in order; ``article`` is what has nothing planted."""
        return tuple(page.url for page in self.pages if page.kind == kind)

    def page(self, url: str) -> WebPage:
        """Return a page by its URL."""
        return next(page for page in self.pages if page.url == url)


def write_web_corpus(
    folder: Path, *, pages: int, seed: int, formats: Sequence[str] = FORMATS, broken: bool = False
) -> Corpus:
    """Write a corpus below ``folder``, which must not exist yet.

    Args:
        folder: gets a folder for each format, ``evaluation.jsonl``, ``blocklist.txt`` and ``unsuitable.txt``.
        pages: number of pages in all; one of 80, and at least one, for each kind that is planted.
        seed: decides all content.
        formats: which of ``FORMATS`` to write.
        broken: whether to write ``broken/``, too: the same whatever the pages and the seed.
    """
    assert pages >= LEAST_PAGES, f"{pages} pages cannot hold every kind; ask for {LEAST_PAGES}"
    folder.mkdir(parents=True)
    samples = _evaluation_samples()
    builder = _Builder(random.Random(f"{seed} pages"), samples)
    for kind in _order_of_kinds(pages, builder.rng):
        builder.add(kind)
    files, not_html = _write_files(folder, builder.pages, formats)
    rows = ({"question": question, "answer": answer} for question, answer in samples)
    (folder / "evaluation.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    (folder / "blocklist.txt").write_text("\n".join(BLOCKED_DOMAINS) + "\n")
    (folder / "unsuitable.txt").write_text("\n".join(UNSUITABLE_WORDS) + "\n")
    return Corpus(
        folder=folder,
        pages=tuple(builder.pages),
        files=files,
        originals=builder.originals,
        strings=builder.strings,
        not_html=not_html,
        evaluation=folder / "evaluation.jsonl",
        blocklist=folder / "blocklist.txt",
        unsuitable_words=folder / "unsuitable.txt",
        broken=write_broken(folder / "broken") if broken else {},
    )


class _Builder:
    """Pages as they are made, and the list of what is in them."""

    def __init__(self, rng: random.Random, samples: Sequence[tuple[str, str]]) -> None:
        self.rng = rng
        self.pages: list[WebPage] = []
        self.originals: dict[str, str] = {}
        self.strings: dict[str, tuple[str, ...]] = {}
        self._samples = samples

    def add(self, kind: str) -> None:
        if kind in DUPLICATES:
            original = self.rng.choice([page for page in self.pages if page.kind == "article"])
            article = edited(original.article, self.rng) if kind == "near_duplicate" else original.article
            url = self._append(kind, article)
            self.originals[url] = original.url
        elif kind == LEAK:
            article, passage = self._leak()
            self.strings[self._append(kind, article)] = (passage,)
        elif kind == "article":
            self._append(kind, write_article(self._language(), self.rng))
        else:
            planted = PLANTS[kind](write_article("en", self.rng), self.rng)
            url = self._append(kind, planted.article)
            if planted.strings:
                self.strings[url] = planted.strings

    def _append(self, kind: str, article: Article) -> str:
        number = len(self.pages)
        host = f"site-{number % 12}.example"
        if kind == "blocked_domain":
            host = f"{self.rng.choice(('', 'www.'))}{self.rng.choice(BLOCKED_DOMAINS)}"
        url = f"https://{host}/{article.language}/{number:05d}.html"
        self.pages.append(make_page(url, kind, article, self.rng))
        return url

    def _language(self) -> str:
        return "en" if self.rng.random() < _ENGLISH_FRACTION else self.rng.choice(LANGUAGES[1:])

    def _leak(self) -> tuple[Article, str]:
        """Return an article with more than 13 words (or as much as a script without spaces needs) of a sample."""
        question, _ = self.rng.choice(self._samples)
        language = "zh" if " " not in question else "en"
        words = list(question) if language in WITHOUT_SPACES else question.split()
        size = _LEAKED_CHARACTERS if language in WITHOUT_SPACES else _LEAKED_WORDS
        begin = self.rng.randint(0, len(words) - size)
        passage = ("" if language in WITHOUT_SPACES else " ").join(words[begin : begin + size])
        article = write_article(language, self.rng)
        asked = f"有人问{passage}。" if language == "zh" else f"Somebody asked: {passage}? "
        return replace(article, paragraphs=(asked + article.paragraphs[0], *article.paragraphs[1:])), passage


def _order_of_kinds(pages: int, rng: random.Random) -> list[str]:
    """Return a kind for every page, duplicates in the second half so that there are originals before them."""
    each = max(1, pages // _PAGES_A_PLANT)
    plants = [kind for kind in (*PLANTS, LEAK) for _ in range(each)]
    duplicates = [kind for kind in DUPLICATES for _ in range(each)]
    articles = ["article"] * (pages - len(plants) - len(duplicates))
    first = articles[: len(articles) // 2]
    rest = [*articles[len(first) :], *plants, *duplicates]
    rng.shuffle(rest)
    return [*first, *rest]


def _evaluation_samples() -> list[tuple[str, str]]:
    """Return questions and answers, some in Chinese, that share nothing with the sentences of the articles."""
    lines = _EVALUATION.read_text(encoding="utf-8").splitlines()
    return [(question, answer) for question, answer in (line.split("\t") for line in lines)]


def _write_files(
    folder: Path, pages: Sequence[WebPage], formats: Sequence[str]
) -> tuple[dict[str, tuple[Path, ...]], tuple[str, ...]]:
    size = -(-len(pages) // FILES_PER_FORMAT)
    files: dict[str, tuple[Path, ...]] = {}
    not_html: list[str] = []
    for name in formats:
        suffix, write = WRITERS[name]
        (folder / name).mkdir()
        paths = [folder / name / f"part-{number:03d}{suffix}" for number in range(FILES_PER_FORMAT)]
        for number, path in enumerate(paths):
            not_html += write(path, pages[number * size : (number + 1) * size])
        files[name] = tuple(paths)
    return files, tuple(not_html)
