"""How the data was made: tokenizer, packing, config, versions."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.card.markup import Html, details, element, joined, share, table, whole
from data_prep.card.sections.view import Section, View, note
from data_prep.card.splits import SplitSize, split_sizes

_CUT = ("documents_cut", "tokens_cut")


def run_section(view: View) -> Section:
    """Return what it takes to make the same data again."""
    summary = view.summary
    facts = {"name": summary["name"], "seed": summary["seed"]}
    if summary.get("seconds") is not None:
        facts["seconds of the run"] = round(summary["seconds"], 1)
    parts = [_facts("Run", facts)]
    for title, key in (("Tokenizer", "tokenizer"), ("Versions", "versions")):
        if summary.get(key):
            parts.append(_facts(title, summary[key]))
    packed = [split for split in split_sizes(summary) if split.packing is not None]
    if packed:
        parts.append(_packing(summary["packing"], packed))
    config = element("pre", json.dumps(summary["config"], indent=2, ensure_ascii=False))
    parts.append(details("The whole config", config))
    return Section("run", "Config, tokenizer, versions", joined(parts))


def _packing(settings: Mapping[str, Any], packed: Sequence[SplitSize]) -> Html:
    """Return what packing cut, beside what laying documents one after the other would have cut."""
    cells = []
    for split in packed:
        counts = split.packing or {}
        cells.append(
            (
                split.source,
                split.split,
                whole(settings[split.source]["seq_length"]),
                *(whole(counts[f"{name}{side}"]) for name in _CUT for side in ("", "_without")),
                whole(split.padding_tokens),
                share(split.padding_tokens, split.tokens + split.padding_tokens),
            )
        )
    head = ["source", "split", "sample length", "documents cut", "without packing", "tokens in them", "without packing"]
    return joined(
        [
            table("Packing", [*head, "padding tokens", "of all tokens"], cells, text_columns=2),
            note(
                "Documents that a border between two samples cuts, and the tokens of such documents; 'without packing' "
                "counts the same documents laid one after the other."
            ),
        ]
    )


def _facts(title: str, facts: Mapping[str, Any]) -> Html:
    rows = [(str(name).replace("_", " "), _said(value)) for name, value in facts.items()]
    return table(title, ["what", "value"], rows, text_columns=2)


def _said(value: Any) -> str:
    if isinstance(value, bool | float | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else json.dumps(value, ensure_ascii=False)
