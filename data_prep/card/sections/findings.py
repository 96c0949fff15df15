"""What was found in the text or was wrong with the input: personal data, evaluation sets, damage."""

from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.card.markup import Html, code, element, joined, share, table, whole
from data_prep.card.sections.view import Section, View, note
from data_prep.card.words import OVERLAP

_MOST_HITS = 30
_PII, _HITS = "pii.", "decontaminate."


def privacy_section(view: View) -> Section:
    """Return what was replaced."""
    counts = _counts(view, _PII)
    if "pii" not in view.sums["passages"] and not counts:
        text = "Personal data was not looked for: the config has no section pii."
        return Section("pii", "Personal data", element("p", text))
    documents = counts.pop("documents", None)
    cells = [(kind.replace("_", " "), whole(count)) for kind, count in counts.items()]
    said = note("Places in the text of documents that went through this stage, duplicates included.")
    body = [table("Replaced by placeholders", ["kind", "places"], cells), said]
    if documents is not None:
        body.insert(0, element("p", f"Documents in which something was replaced: {whole(documents)}."))
    return Section("pii", "Personal data", joined(body))


def evaluation_section(view: View) -> Section:
    """Return which evaluation sets were met."""
    title = "Decontamination"
    counts, hits = _counts(view, _HITS), view.figures.hits
    if "decontaminate" not in view.sums["passages"] and not hits:
        text = "Evaluation sets were not looked for: the config has no section decontaminate."
        return Section("decontamination", title, element("p", text))
    looked_for = _looked_for(view.summary.get("evaluation") or [])
    if not hits and not counts:
        text = "No document shares text with an evaluation set."
        return Section("decontamination", title, joined([element("p", text), *looked_for]))
    ordered = sorted(hits.items(), key=lambda item: (-item[1].documents, item[0]))
    cells = [(element("bdi", name), element("bdi", hit.first), whole(hit.documents)) for name, hit in ordered]
    below = counts.pop("below_threshold", 0)
    total = sum(tally.documents for (_, outcome, _), tally in view.figures.cells.items() if outcome == OVERLAP)
    text = (
        f"Documents dropped ({OVERLAP}): {whole(total)}; evaluation samples that they share text with: "
        f"{whole(len(hits))}. Documents that share too little to be dropped: {whole(below)}."
    )
    body = [element("p", text)]
    if counts:
        rows = [(element("bdi", name), whole(count)) for name, count in counts.items()]
        body.append(table("Evaluation sets", ["file", "documents dropped"], rows))
    head = ["evaluation sample", "first document", "documents"]
    body.append(table(f"Samples hit most, {len(cells[:_MOST_HITS])} of {len(cells)}", head, cells[:_MOST_HITS], 2))
    body.append(
        note("A document that shares text with several samples counts for each, for a hundred of them at most.")
    )
    return Section("decontamination", title, joined([*body, *looked_for]))


def _looked_for(files: Sequence[Mapping[str, Any]]) -> list[Html]:
    """Return the table of evaluation sets, and which samples are too short to be found."""
    if not files:
        return []
    rows = [
        (
            element("bdi", file["label"]),
            whole(file["samples"]),
            whole(file["ngrams"]),
            whole(file["whole_texts"]),
            whole(file["too_short"]),
        )
        for file in files
    ]
    head = ["file", "samples", "n-grams", "short texts, as a whole", "samples too short"]
    parts = [table("What was looked for", head, rows)]
    short = [
        element("li", element("bdi", f"{file['label']}: {', '.join(map(str, file['first_too_short']))}"))
        for file in files
        if file["too_short"]
    ]
    if short:
        parts += [note("Samples too short to be looked for, the first of each set by number:"), element("ul", *short)]
    return parts


def damage_section(view: View) -> Section:
    """Return what could not be read, and what else was counted."""
    damage = view.sums["damage"]
    read = view.num_records + sum(damage.values())
    body = []
    if damage:
        cells = [
            (kind.replace("_", " "), whole(count), share(count, read))
            for kind, count in sorted(damage.items(), key=lambda item: (-item[1], item[0]))
        ]
        body.append(table("Records that could not be read", ["kind", "records", "of all records"], cells))
        examples = [element("li", element("bdi", text)) for text in view.sums["damage_examples"]]
        body += [element("h3", "Examples"), element("ul", *examples)]
    else:
        body.append(element("p", "Every record could be read."))
    others = [
        (code(name), whole(count)) for name, count in view.sums["counts"].items() if not name.startswith((_PII, _HITS))
    ]
    if others:
        body.append(table("Counted on the way", ["what", "times"], others))
    return Section("damage", "Damaged input", joined(body))


def _counts(view: View, prefix: str) -> dict[str, int]:
    found = {name.removeprefix(prefix): count for name, count in view.sums["counts"].items() if name.startswith(prefix)}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
