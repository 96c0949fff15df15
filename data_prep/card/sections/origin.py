"""Where documents come from, and which of them are the same."""

from collections.abc import Mapping
from typing import Any

from data_prep.card.markup import DASH, Html, details, element, joined, share, size, table, whole
from data_prep.card.sections.view import Section, View, note
from data_prep.card.svg import Axis, Bar, Tick, cell_bar, histogram, legend
from data_prep.card.words import DEDUP, outcome_words


def places_section(view: View) -> Section:
    """Return the hosts and folders with most documents."""
    found = view.figures.places
    most = max((fates.documents for _, fates in found), default=0)
    cells = [
        (
            element("bdi", name),
            cell_bar(fates.kept.documents, fates.dropped.documents, most),
            whole(fates.documents),
            share(fates.documents, view.num_records),
            whole(fates.kept.documents),
            share(fates.kept.documents, fates.documents),
            size(fates.kept.text_bytes),
            whole(fates.kept.tokens),
        )
        for name, fates in found
    ]
    head = ["domain or folder", "documents", "in", "share of all", "kept", "kept of in", "text kept", "tokens kept"]
    body = [
        legend(),
        table(f"The {len(cells)} with most documents, of about {whole(view.figures.num_places)}", head, cells),
        note(
            "The host of a document's URL, 'www.' left out; for a file the first folder below its source's path. "
            "Counts are exact, the number of all domains is an estimate (linear counting)."
        ),
    ]
    return Section("domains", "Top domains", joined(body))


def duplicates_section(view: View) -> Section:
    """Return how many duplicates there were and the largest groups."""
    dedup = next((flow for flow in view.flows if flow.stage == DEDUP), None)
    clusters = view.summary.get("near_clusters")
    if not (dedup and dedup.rules) and not clusters:
        return Section("duplicates", "Duplicates", element("p", "No duplicates were dropped."))
    body: list[Html] = []
    if dedup:
        rows = [
            (
                outcome_words(outcome),
                whole(tally.documents),
                share(tally.documents, dedup.documents_in),
                size(tally.text_bytes),
            )
            for outcome, tally in dedup.rules.items()
        ]
        body.append(table("Dropped as duplicates", ["why", "documents", "of those compared", "text"], rows))
    if clusters and clusters.get("sizes"):
        body.append(_sizes(clusters))
    body += _groups(view)
    return Section("duplicates", "Duplicate clusters", joined(body))


def _sizes(clusters: Mapping[str, Any]) -> Html:
    sizes = {int(begin): int(count) for begin, count in clusters["sizes"].items()}
    begins = sorted(sizes)
    bars = [
        Bar(place / len(begins), (place + 1) / len(begins), (sizes[begin],), f"{_span(begin)}: {whole(sizes[begin])}")
        for place, begin in enumerate(begins)
    ]
    ticks = [Tick((place + 0.5) / len(begins), _span(begin)) for place, begin in enumerate(begins)]
    said = "; ".join(f"{_span(begin)} documents: {whole(sizes[begin])} clusters" for begin in begins)
    text = (
        f"Clusters of near-duplicates: {whole(clusters['clusters'])}; of the documents in them one each is kept, "
        f"{whole(clusters['removed'])} are dropped. Compared were {whole(clusters['documents'])}."
    )
    cells = [(_span(begin), whole(sizes[begin])) for begin in begins]
    return joined(
        [
            element("h3", "Sizes of near-duplicate clusters"),
            element("p", text),
            histogram("cluster-sizes", "Near-duplicate clusters by their number of documents", said, bars, Axis(ticks)),
            note("Height: clusters; below: documents in a cluster, the kept one included."),
            details("As a table", table("Cluster sizes", ["documents in a cluster", "clusters"], cells)),
        ]
    )


def _groups(view: View) -> list[Html]:
    if not view.figures.groups:
        return []
    cells = [
        (
            joined([element("bdi", group.kept_name)]),
            joined(element("div", element("bdi", example)) for example in group.examples),
            outcome_words(group.outcome),
            whole(group.copies),
        )
        for group in view.figures.groups
    ]
    head = ["kept document", "some of those dropped", "why", "dropped"]
    return [table("The largest groups", head, cells, text_columns=3)]


def _span(begin: int) -> str:
    return f"{whole(begin)} {DASH} {whole(2 * begin - 1)}"
