"""Which documents are good enough: languages, published rule sets, lists, a classifier."""

import re
from pathlib import Path

from gptdist.config.prep_rule_sets import C4Section, FineWebSection, GopherQualitySection, GopherRepetitionSection
from gptdist.config.section import Section

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_LANGUAGE = re.compile(r"[a-z]{2,3}")


class LanguageSection(Section):
    """Language identification by a model that comes with a package; without this section it is not run."""

    keep: tuple[str, ...] = ()
    """Codes of ISO 639 as fastText gives them, such as ``en``, ``zh``, ``ja``, ``ar``, ``ru``; empty keeps all."""

    min_confidence: float = 0.0
    """Least probability of the best language, 0 … 1. FineWeb took English from 0.65 on."""

    def problems(self) -> list[str]:
        """Return every value out of range."""
        bad = []
        if not 0.0 <= self.min_confidence <= 1.0:
            bad.append(f"language.min_confidence: must be 0 … 1, got {self.min_confidence}; change the value")
        bad += [
            f"language.keep: '{code}' is no code of ISO 639; write it like en, zh or ceb"
            for code in self.keep
            if not _LANGUAGE.fullmatch(code)
        ]
        return bad


class UrlBlocklistSection(Section):
    """Documents from these addresses are dropped, before their page is looked into; those without a URL pass."""

    files: tuple[Path, ...] = ()
    """Lists, one entry a line: ``example.com`` blocks the domain and what is below it, ``example.com/path`` (with or
    without ``https://``) the addresses that begin so; lines of a hosts file (``0.0.0.0 example.com``) work too, ``#``
    begins a comment. An entry takes 8 bytes of memory."""

    word_files: tuple[Path, ...] = ()
    """Lists of words, one a line; an address falls that has one of them between its punctuation marks."""

    def problems(self) -> list[str]:
        """Return what is missing."""
        if self.files or self.word_files:
            return []
        return ["quality.url_blocklist: names no list; set files or word_files, or remove the section"]


class WordListSection(Section):
    """Documents with unsuitable words are dropped.

    Upper and lower case are the same, what stands between the words of a phrase does not matter. An entry with a
    character of a script without spaces between words is found inside of longer words too.
    """

    files: tuple[Path, ...]
    """Lists, one word or phrase a line; ``#`` begins a comment line."""

    max_matches: int | None = 0
    """Most occurrences. C4 (Raffel et al. 2020, section 2.2) dropped every page that had one: 0."""

    max_word_fraction: float | None = None
    """Largest share of the document's words that belong to occurrences; a character of a script without spaces is
    a word."""

    def problems(self) -> list[str]:
        """Return every value out of range."""
        where = "quality.word_list"
        bad = [] if self.files else [f"{where}.files: empty; name at least one file, or remove the section"]
        if self.max_matches is None and self.max_word_fraction is None:
            bad.append(f"{where}: sets no limit; set max_matches or max_word_fraction")
        if self.max_matches is not None and self.max_matches < 0:
            bad.append(f"{where}.max_matches: must not be negative, got {self.max_matches}; change the value")
        if self.max_word_fraction is not None and not 0.0 <= self.max_word_fraction <= 1.0:
            bad.append(f"{where}.max_word_fraction: must be 0 … 1, got {self.max_word_fraction}; change the value")
        return bad


class FastTextSection(Section):
    """A supervised fastText model."""

    path: Path
    """The ``.bin`` or ``.ftz`` file."""

    label: str
    """The label whose probability is the score, such as ``__label__hq``."""


class ClassifierSection(Section):
    """A score for each document; exactly one of ``function`` and ``fasttext``."""

    function: str | None = None
    """``package.module:function``: called with a list of texts, returns a number for each. It has to give a text the
    same score in whatever company and on whatever machine, or shards will differ."""

    fasttext: FastTextSection | None = None

    min_score: float
    """Documents below are dropped."""

    def problems(self) -> list[str]:
        """Return every contradiction."""
        where = "quality.classifier"
        bad = []
        if (self.function is None) == (self.fasttext is None):
            bad.append(f"{where}: set either function or fasttext")
        if self.function is not None and not _FUNCTION.fullmatch(self.function):
            bad.append(f"{where}.function: '{self.function}' is not of the form package.module:function; rewrite it")
        return bad


class QualitySection(Section):
    """Rule sets, applied in this order; each is off unless it is named, ``{}`` takes its published thresholds."""

    url_blocklist: UrlBlocklistSection | None = None
    gopher_quality: GopherQualitySection | None = None
    gopher_repetition: GopherRepetitionSection | None = None
    c4: C4Section | None = None
    """Removes lines, too; what comes after it sees the lines that are left."""

    fineweb: FineWebSection | None = None
    word_list: WordListSection | None = None
    classifier: ClassifierSection | None = None

    def problems(self) -> list[str]:
        """Return every value out of range."""
        bad: list[str] = []
        for key in ("gopher_quality", "gopher_repetition", "c4", "fineweb"):
            rule_set = getattr(self, key)
            bad += rule_set.problems(f"quality.{key}") if rule_set is not None else []
        for section in (self.url_blocklist, self.word_list, self.classifier):
            bad += section.problems() if section is not None else []
        return bad
