"""The stages of quality: the address before a page is looked into, rule sets once its text is known.

Rule sets come in the order of the config section: Gopher's judge the text as it is, C4's remove lines, and what comes
after sees the lines that are left; the classifier, which costs most, comes last.
"""

from collections.abc import Callable, Iterator
from itertools import islice

from data_prep.account import Account
from data_prep.document import Document, Place, Stage
from data_prep.quality.c4 import c4
from data_prep.quality.classifier import load_scorer, score
from data_prep.quality.fineweb import fineweb
from data_prep.quality.gopher import gopher_quality, gopher_repetition
from data_prep.quality.measured import Measured
from data_prep.quality.url_list import load_url_list
from data_prep.quality.verdict import Verdict
from data_prep.quality.word_list import load_word_list, word_list
from data_prep.quality.words import hashes_of
from gptdist.config.prep_quality import ClassifierSection, QualitySection
from gptdist.config.prep_rule_sets import C4Section

SCORED_TOGETHER = 64
"""Documents that a classifier is given at once."""

Judge = Callable[[Document, Measured], Verdict | None]


def check_quality(section: QualitySection) -> None:
    """Load every list and classifier, so that a run with a wrong path ends before it begins.

    Raises:
        DataError: one cannot be loaded.
    """
    if section.url_blocklist is not None:
        load_url_list(section.url_blocklist.files, section.url_blocklist.word_files)
    if section.word_list is not None:
        load_word_list(section.word_list.files)
    if section.classifier is not None:
        load_scorer(section.classifier)


def url_stage(section: QualitySection, place: Place, account: Account) -> Stage:
    """Return the stage that drops documents whose address is blocked.

    Raises:
        DataError: a list cannot be read.
    """
    lists = section.url_blocklist
    blocked = load_url_list(lists.files, lists.word_files) if lists is not None else None

    def stage(documents: Iterator[Document]) -> Iterator[Document]:
        for document in documents:
            found = blocked.blocked_by(document.url) if blocked is not None and document.url else None
            if found is None:
                yield document
            else:
                account.drop(document, "url", found[0], entry=found[1])

    return stage


def quality_stage(section: QualitySection, place: Place, account: Account) -> Stage:
    """Return the stage that applies the rule sets of ``section``.

    Raises:
        DataError: a list or classifier cannot be loaded.
    """
    before, after = _judges_before(section), _judges_after(section)
    scored = _scored(section.classifier, account) if section.classifier is not None else None

    def stage(documents: Iterator[Document]) -> Iterator[Document]:
        for document in documents:
            text = Measured(document.text)
            if _is_dropped(document, text, before, account):
                continue
            kept = document if section.c4 is None else _sifted(document, text, section.c4, account)
            if kept is None:
                continue
            left = text if kept is document else Measured(kept.text)
            if not _is_dropped(kept, left, after, account):
                yield kept

    return stage if scored is None else lambda documents: scored(stage(documents))


def _is_dropped(document: Document, text: Measured, judges: list[tuple[str, Judge]], account: Account) -> bool:
    for name, judge in judges:
        verdict = judge(document, text)
        if verdict is not None:
            account.drop(document, name, verdict.rule, value=verdict.value, threshold=verdict.threshold)
            return True
    return False


def _judges_before(section: QualitySection) -> list[tuple[str, Judge]]:
    judges: list[tuple[str, Judge]] = []
    quality, repetition = section.gopher_quality, section.gopher_repetition
    if quality is not None:
        stop_words = hashes_of(quality.stop_words)
        judges.append(
            ("gopher_quality", lambda document, text: gopher_quality(text, document.language, quality, stop_words))
        )
    if repetition is not None:
        judges.append(("gopher_repetition", lambda document, text: gopher_repetition(text, repetition)))
    return judges


def _judges_after(section: QualitySection) -> list[tuple[str, Judge]]:
    judges: list[tuple[str, Judge]] = []
    web, unsuitable = section.fineweb, section.word_list
    if web is not None:
        judges.append(("fineweb", lambda document, text: fineweb(text, web)))
    if unsuitable is not None:
        words = load_word_list(unsuitable.files)
        judges.append(("word_list", lambda document, text: word_list(document.text, words, unsuitable)))
    return judges


def _sifted(document: Document, text: Measured, section: C4Section, account: Account) -> Document | None:
    """Apply C4's rules; the lines that go are counted for documents that stay."""
    result = c4(text, document.text, section)
    if result.verdict is not None:
        account.drop(
            document, "c4", result.verdict.rule, value=result.verdict.value, threshold=result.verdict.threshold
        )
        return None
    for reason, count in result.removed.items():
        account.count(f"c4.lines_removed.{reason}", count)
    return document if result.text == document.text else document.with_text(result.text)


def _scored(section: ClassifierSection, account: Account) -> Stage:
    scorer = load_scorer(section)
    name = section.function or str(section.fasttext and section.fasttext.path)

    def stage(documents: Iterator[Document]) -> Iterator[Document]:
        while batch := list(islice(documents, SCORED_TOGETHER)):
            for document, value in zip(batch, score(scorer, [one.text for one in batch], name), strict=True):
                if value < section.min_score:
                    account.drop(document, "classifier", "min_score", value=value, threshold=section.min_score)
                else:
                    yield document

    return stage
