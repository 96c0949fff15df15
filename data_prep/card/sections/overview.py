"""First what came out, then the funnel and the sources."""

from typing import Any

from data_prep.account import READ
from data_prep.card.flow import StageFlow
from data_prep.card.markup import DASH, Html, code, element, escaped, joined, share, size, table, whole
from data_prep.card.sections.view import Section, View, note
from data_prep.card.splits import split_sizes
from data_prep.card.svg import Band, funnel, legend
from data_prep.card.words import outcome_words, stage_title


def tiles(view: View) -> Html:
    """Return the numbers that come first."""
    damaged = sum(view.sums["damage"].values())
    languages = len([language for language in view.languages if language])
    kept, splits = view.kept, view.splits
    entries = [
        ("Documents in", whole(view.num_records), f"from {whole(_total(view, 'inputs'))} inputs, {_input_size(view)}"),
        ("Documents kept", whole(kept.documents), f"{share(kept.documents, view.num_records)} of those in"),
        ("Text kept", size(splits.text_bytes), "UTF-8, in the shards"),
        ("Tokens", whole(splits.tokens), f"{_ratio(splits.text_bytes, splits.tokens)} bytes a token"),
        ("Languages", whole(languages) if languages else DASH, "identified" if languages else "not identified"),
        ("Damaged records", whole(damaged), f"{share(damaged, damaged + view.num_records)} of all records"),
    ]
    return element(
        "dl",
        *(
            element("div", element("dt", name), element("dd", value, element("small", remark)))
            for name, value, remark in entries
        ),
        class_="tiles",
    )


def disagreement(view: View) -> Html:
    """Return a warning where rows and shards do not hold the same documents; nothing where they do."""
    rows, shards = view.kept, view.splits
    if (rows.documents, rows.tokens) == (shards.documents, shards.tokens):
        return Html("")
    return element(
        "p",
        f"The account's rows say that {whole(rows.documents)} documents with {whole(rows.tokens)} tokens were kept, "
        f"the shards hold {whole(shards.documents)} with {whole(shards.tokens)}: run 'gptdist data verify'.",
        class_="alarm",
    )


def funnel_section(view: View) -> Section:
    """Return the stages as a picture, and the rules as a table."""
    bands = [_band(flow) for flow in view.flows]
    said = "; ".join(
        f"{band.title}: {whole(band.documents_in)} documents in, {whole(band.documents_out)} out" for band in bands
    )
    rules = [
        (stage_title(flow.stage), code(outcome), outcome_words(outcome), *_numbers(tally, flow))
        for flow in view.flows
        for outcome, tally in flow.rules.items()
    ]
    stages = [
        (stage_title(flow.stage), *map(whole, (flow.documents_in, flow.documents_out)), *_sizes(flow))
        for flow in view.flows
    ]
    body = [
        funnel("funnel-picture", said, bands),
        legend(),
        table("Stages", ["stage", "documents in", "documents out", "bytes in", "bytes out"], stages),
        note(
            "Bytes are UTF-8 bytes of text. A page has none before its text is found, so reading counts pages as they "
            "came. Percentages are of the documents that entered the stage."
        ),
    ]
    if rules:
        head = ["stage", "rule", "meaning", "documents dropped", "of its stage", "bytes dropped"]
        body.append(table("What each rule dropped", head, rules, text_columns=3))
    return Section("funnel", "Funnel", joined(body))


def sources_section(view: View) -> Section:
    """Return where the documents come from and under which licence."""
    rows = [_source(source) for source in view.summary["sources"]]
    head = ["source", "kind", "licence", "paths", "inputs", "input size", "documents in", "weight"]
    splits = [
        (split.source, split.split, *map(whole, (split.documents, split.tokens)), size(split.text_bytes))
        for split in split_sizes(view.summary)
    ]
    body = [
        table("Sources", head, rows, text_columns=4),
        note("Input size is on disk, compressed as it is. The weight is the share that the config asks for."),
        table("Splits", ["source", "split", "documents", "tokens", "text"], splits, text_columns=2),
    ]
    return Section("sources", "Sources and licences", joined(body))


def _band(flow: StageFlow) -> Band:
    as_read = f"{size(flow.bytes_out)} as read" if flow.stage == READ else None
    title = stage_title(flow.stage)
    return Band(title, flow.documents_in, flow.documents_out, flow.bytes_in, flow.bytes_out, as_read)


def _sizes(flow: StageFlow) -> tuple[str, str]:
    return (
        (DASH, f"{size(flow.bytes_out)} as read") if flow.stage == READ else (size(flow.bytes_in), size(flow.bytes_out))
    )


def _numbers(tally: Any, flow: StageFlow) -> tuple[str, str, str]:
    return whole(tally.documents), share(tally.documents, flow.documents_in), size(tally.text_bytes)


def _source(source: Any) -> tuple[str, ...]:
    paths = source.get("paths") or ()
    shown = joined(element("div", code(path)) for path in paths[:5])
    more = escaped(f"and {whole(len(paths) - 5)} more") if len(paths) > 5 else Html("")
    return (
        source["name"],
        source["kind"],
        source.get("licence") or "not stated",
        joined([shown, more]),
        whole(source["inputs"]),
        size(source["input_bytes"]),
        whole(source["records_read"]),
        f"{source['weight']:g}",
    )


def _total(view: View, key: str) -> int:
    return sum(source[key] for source in view.summary["sources"])


def _input_size(view: View) -> str:
    return size(_total(view, "input_bytes"))


def _ratio(part: int, of: int) -> str:
    return f"{part / of:.2f}" if of else DASH
