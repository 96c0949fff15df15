"""The way of the documents through the stages, put together from passages and rows."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data_prep.account import KEPT, READ
from data_prep.card.figures import Figures, Tally
from data_prep.card.words import DEDUP, stage_of, stage_order


@dataclass
class StageFlow:
    """What one stage was given, let through and dropped."""

    stage: str
    documents_in: int = 0
    bytes_in: int = 0
    documents_out: int = 0
    bytes_out: int = 0
    rules: dict[str, Tally] = field(default_factory=dict)
    """Dropped documents by outcome, most first."""


def stage_flows(passages: Mapping[str, Any], figures: Figures) -> list[StageFlow]:
    """Return the stages in order, duplicates last.

    Numbers in and out are the passages', what was dropped is counted in the rows. A reader has nothing before it; where
    duplicates have no passage, they were found among what the last stage let through.
    """
    rules = _rules(passages, figures)
    names = sorted({*passages, *rules}, key=stage_order)
    flows: list[StageFlow] = []
    for name in names:
        passage = passages.get(name, {})
        flow = StageFlow(name, *(passage.get(key, 0) for key in ("documents_in", "bytes_in")))
        flow.documents_out, flow.bytes_out = passage.get("documents_out", 0), passage.get("bytes_out", 0)
        flow.rules = dict(sorted(rules.get(name, {}).items(), key=lambda item: (-item[1].documents, item[0])))
        lost = sum(tally.documents for tally in flow.rules.values())
        if name == READ:
            flow.documents_in, flow.bytes_in = flow.documents_out + lost, flow.bytes_out
        if name == DEDUP and flows and not flow.documents_in:
            flow.documents_in, flow.bytes_in = flows[-1].documents_out, flows[-1].bytes_out
            flow.documents_out = flow.documents_in - lost
            flow.bytes_out = flow.bytes_in - sum(tally.text_bytes for tally in flow.rules.values())
        flows.append(flow)
    return flows


def by_language(figures: Figures) -> dict[str | None, dict[str, Tally]]:
    """Return what became of the documents of each language, by outcome; the languages with most documents first."""
    found: dict[str | None, dict[str, Tally]] = defaultdict(lambda: defaultdict(Tally))
    for (_, outcome, language), tally in figures.cells.items():
        found[language][outcome].add(tally.documents, tally.text_bytes, tally.tokens)
    order = sorted(found, key=lambda language: (language is None, -_documents(found[language]), language or ""))
    return {language: dict(found[language]) for language in order}


def _rules(passages: Mapping[str, Any], figures: Figures) -> dict[str, dict[str, Tally]]:
    rules: dict[str, dict[str, Tally]] = defaultdict(lambda: defaultdict(Tally))
    for (_, outcome, _), tally in figures.cells.items():
        if outcome != KEPT:
            rules[stage_of(outcome, passages)][outcome].add(tally.documents, tally.text_bytes, tally.tokens)
    return rules


def _documents(outcomes: Mapping[str, Tally]) -> int:
    return sum(tally.documents for tally in outcomes.values())
