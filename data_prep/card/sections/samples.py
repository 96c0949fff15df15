"""Kept and dropped text, to be looked at."""

import json
from collections.abc import Mapping
from typing import Any

from data_prep.account import KEPT
from data_prep.card.figures import name_of
from data_prep.card.markup import DASH, Html, details, element, joined
from data_prep.card.sections.view import Section, View, note
from data_prep.card.words import outcome_words, stage_of, stage_order


def samples_section(view: View) -> Section:
    """Return samples of each outcome; what was kept is open, the rest folded."""
    samples = view.sums["samples"]
    stages = view.sums["passages"]
    body = [
        note(
            "The documents of each outcome with the smallest hashes of path and record, so a sample without a choice. "
            "The first characters of each; those kept passed every stage, and may be dropped as duplicates later."
        )
    ]
    if KEPT in samples:
        body += [element("h3", "Kept"), *map(_sample, samples[KEPT])]
    dropped = sorted(set(samples) - {KEPT}, key=lambda outcome: (stage_order(stage_of(outcome, stages)), outcome))
    if dropped:
        body.append(element("h3", "Dropped, by rule"))
    for outcome in dropped:
        body.append(details(f"{outcome}: {outcome_words(outcome)}", *map(_sample, samples[outcome])))
    return Section("samples", "Samples", joined(body))


def numbers_words(numbers: Mapping[str, Any]) -> str:
    """Return a rule's numbers in a line; the threshold comes last."""
    ordered = sorted(numbers.items(), key=lambda item: (item[0].startswith(("threshold", "min_", "max_")), item[0]))
    return ", ".join(f"{key.replace('_', ' ')} {_number(value)}" for key, value in ordered)


def _sample(entry: Any) -> Html:
    sample = entry[1]
    facts = [sample["language"], numbers_words(sample["numbers"])]
    said = "; ".join(fact for fact in facts if fact)
    where = element("bdi", name_of(sample["url"], sample["path"], sample["record"]))
    text = sample["text"].strip()
    quote = element("blockquote", text, dir="auto") if text else element("blockquote", element("i", "(no text)"))
    return element(
        "div", element("div", where, f" {DASH} {said}" if said else "", class_="where"), quote, class_="sample"
    )


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
