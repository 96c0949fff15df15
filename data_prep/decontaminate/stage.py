"""The stage that drops documents with text of evaluation sets, and the report of what was hit."""

import json
from collections.abc import Iterator

from data_prep.account import Account
from data_prep.decontaminate.table import EvaluationTable, Overlap, evaluation_table
from data_prep.document import Document, Place, Stage
from gptdist.config.prep_decontaminate import DecontaminateSection

STAGE_NAME, RULE = "decontaminate", "overlap"
_MOST_NAMED = 100
"""Samples that a row names; a document that holds a whole set would make it long."""


def decontaminate_stage(section: DecontaminateSection, place: Place, account: Account) -> Stage:
    """Return the stage that drops documents that share n-grams with an evaluation set.

    Each is told to the account with the first sample hit, the others, how many n-grams, and their share. Counted are
    ``decontaminate.FILE`` for each document dropped by a sample of that file, ``decontaminate.below_threshold`` for
    documents that share something, but too little.

    Args:
        section: evaluation sets and thresholds.
        place: not used: what becomes of a document depends on it alone.
        account: where drops are written down.

    Raises:
        DataError: an evaluation set cannot be used.
    """
    table = evaluation_table(section)

    def stage(documents: Iterator[Document]) -> Iterator[Document]:
        for document in documents:
            overlap = table.overlap(document.utf8)
            if overlap is None:
                yield document
            elif overlap.ngrams < section.min_ngrams or overlap.share < section.min_share:
                account.count(f"{STAGE_NAME}.below_threshold")
                yield document
            else:
                _drop(document, overlap, table, section, account)

    return stage


def _drop(
    document: Document, overlap: Overlap, table: EvaluationTable, section: DecontaminateSection, account: Account
) -> None:
    for label in dict.fromkeys(table.label(sample) for sample in overlap.samples):
        account.count(f"{STAGE_NAME}.{label}")
    names = [table.name(sample) for sample in overlap.samples[:_MOST_NAMED]]
    numbers: dict[str, float | str] = {
        "evaluation": names[0],
        "samples": len(overlap.samples),
        "ngrams": overlap.ngrams,
        "min_ngrams": section.min_ngrams,
        "share": round(overlap.share, 4),
        "min_share": section.min_share,
    }
    if len(names) > 1:
        numbers["others"] = json.dumps(names[1:], ensure_ascii=False)
    account.drop(document, STAGE_NAME, RULE, **numbers)
