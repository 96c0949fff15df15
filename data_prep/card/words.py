"""Stages in their order, and outcomes in words."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

from data_prep.account import KEPT, QUALITY, READ

DEDUP = "dedup"
OVERLAP = "decontaminate.overlap"
_ORDER = (READ, "url", "extract", "language", "filters", QUALITY, "decontaminate", "pii")

STAGES: Mapping[str, str] = MappingProxyType(
    {
        READ: "Reading",
        "url": "URL blocklist",
        "extract": "Text from HTML",
        "language": "Language",
        "filters": "Size and letters",
        QUALITY: "Quality",
        "gopher_quality": "Gopher quality",
        "gopher_repetition": "Gopher repetition",
        "c4": "C4",
        "fineweb": "FineWeb",
        "word_list": "Word list",
        "classifier": "Classifier",
        "decontaminate": "Decontamination",
        "pii": "Personal data",
        DEDUP: "Duplicates",
    }
)
"""Titles of stages and rule sets."""

_RULES: Mapping[str, str] = MappingProxyType(
    {
        KEPT: "passed every stage",
        "read.empty": "the record holds no text",
        "read.file_too_large": "the file is larger than the source's max_file_bytes",
        "url.domain": "the domain, or one above it, is on the blocklist",
        "url.prefix": "the address begins as one on the blocklist",
        "url.word": "the address has a word that is on the blocklist",
        "extract.no_text": "no main text was found in the page",
        "extract.page_too_large": "more bytes than extract.max_page_bytes, or more tags than extract.max_page_tags",
        "extract.page_too_slow": "the page takes longer than extract.max_page_seconds",
        "extract.page_too_deep": "the page's tags nest deeper than extract.max_nesting",
        "language.not_kept": "the language is not in language.keep",
        "language.low_confidence": "the best language is less probable than language.min_confidence",
        "filters.too_short": "the text is shorter than filters.min_characters",
        "filters.too_long": "the text is longer than filters.max_characters",
        "filters.long_line": "a line is longer than filters.max_line_characters",
        "filters.not_alphabetic": "fewer letters than filters.min_alphabetic_fraction",
        "decontaminate.overlap": "shares too many n-grams with an evaluation set",
        "dedup.exact": "the same text stands earlier in the corpus",
        "dedup.near": "a near-duplicate of a document that was kept",
        "dedup.lines": "too little was left once repeated lines or paragraphs were cut",
    }
)


_SIDES: Mapping[str, str] = MappingProxyType({"min": "below its minimum", "max": "above its maximum"})
"""What became of a document whose rule has the name of a threshold, such as ``max_mean_word_length``."""


def stage_of(outcome: str, stages: Collection[str]) -> str:
    """Return the stage of an outcome: its own, or ``quality`` where a rule set of that stage is its beginning."""
    beginning = outcome.partition(".")[0]
    return beginning if beginning in stages or beginning == DEDUP else QUALITY


def stage_order(stage: str) -> int:
    """Return the place of a stage in the order of a run: what is not known comes last but for duplicates."""
    if stage in _ORDER:
        return _ORDER.index(stage)
    return len(_ORDER) + (stage == DEDUP)


def set_order(rules: str) -> tuple[int, str]:
    """Return the place of a stage or of a rule set, which stands where the quality stage does."""
    if rules in _ORDER or rules == DEDUP:
        return stage_order(rules), ""
    return _ORDER.index(QUALITY), rules


def stage_title(stage: str) -> str:
    """Return how the card calls a stage or rule set."""
    return STAGES.get(stage) or stage.replace("_", " ").capitalize()


def outcome_words(outcome: str) -> str:
    """Return what an outcome means."""
    if outcome in _RULES:
        return _RULES[outcome]
    stage, _, rule = outcome.partition(".")
    side, _, measure = rule.partition("_")
    said = f"{measure} {_SIDES[side]}" if side in _SIDES and measure else rule
    return f"{stage_title(stage)}: {said.replace('_', ' ')}" if rule else outcome
