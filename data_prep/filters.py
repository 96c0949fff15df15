"""Rules that a document has to pass, one at a time, each with its own count."""

from collections.abc import Callable, Iterator

from data_prep.document import Document, Stage
from data_prep.funnel import Funnel
from gptdist.config.prep import FilterSection

Rule = tuple[str, Callable[[str], bool]]
"""The reason that is counted, and whether a text falls to it."""


def filter_stage(section: FilterSection, funnel: Funnel) -> Stage:
    """Return the stage that drops what a rule of ``section`` refuses; the first rule that does is counted."""
    rules = _rules(section)

    def stage(documents: Iterator[Document]) -> Iterator[Document]:
        for document in documents:
            reason = next((reason for reason, refuses in rules if refuses(document.text)), None)
            if reason is None:
                yield document
            else:
                funnel.drop(reason)

    return stage


def stop_stage(max_bytes: int | None) -> Stage:
    """Return the stage that ends after the document that brings the text to ``max_bytes``."""

    def stage(documents: Iterator[Document]) -> Iterator[Document]:
        passed = 0
        for document in documents:
            yield document
            passed += len(document.utf8)
            if max_bytes is not None and passed >= max_bytes:
                return

    return stage


def _rules(section: FilterSection) -> list[Rule]:
    rules: list[Rule] = [("too_short", lambda text: len(text.strip()) < section.min_characters)]
    longest, longest_line = section.max_characters, section.max_line_characters
    if longest is not None:
        rules.append(("too_long", lambda text: len(text) > longest))
    if longest_line is not None:
        rules.append(("long_line", lambda text: max(map(len, text.splitlines()), default=0) > longest_line))
    if section.min_alphabetic_fraction > 0.0:
        rules.append(("few_letters", lambda text: alphabetic_fraction(text) < section.min_alphabetic_fraction))
    return rules


def alphabetic_fraction(text: str) -> float:
    """Return the share of letters among the characters that are not white space; 0 where there are none."""
    visible = "".join(text.split())
    return sum(map(str.isalpha, visible)) / len(visible) if visible else 0.0
