"""Languages, and how many bytes a token stands for."""

from collections.abc import Mapping

from data_prep.account import KEPT
from data_prep.card.figures import Tally
from data_prep.card.markup import Html, details, element, joined, share, size, table, whole
from data_prep.card.sections.view import Section, View, language_name, note
from data_prep.card.svg import bars, cell_bar, legend
from data_prep.card.words import set_order, stage_title

_MOST_LANGUAGES = 40
_FEWEST_TOKENS = 1000
"""Of fewer, bytes a token is an accident."""


def languages_section(view: View) -> Section:
    """Return documents, bytes and tokens of each language, and which rules drop which language."""
    rows = _largest(view.languages)
    most = max((_all(outcomes).documents for _, outcomes in rows), default=0)
    body = []
    cells = []
    for name, outcomes in rows:
        every, kept = _all(outcomes), outcomes.get(KEPT, Tally())
        lost = every.documents - kept.documents
        cells.append(
            (
                name,
                cell_bar(kept.documents, lost, most),
                whole(every.documents),
                whole(kept.documents),
                share(kept.documents, every.documents),
                share(kept.documents, view.kept.documents),
                size(kept.text_bytes),
                whole(kept.tokens),
                share(kept.tokens, view.kept.tokens),
            )
        )
    head = ["language", "documents", "in", "kept", "kept of in", "share", "text kept", "tokens", "share of tokens"]
    body += [legend(), table("Languages", head, cells)]
    body.append(
        note(
            "ISO 639 codes. Documents that were dropped before the language stage, and all where it did not run, are "
            "'not identified'. Shares are of all that was kept. Tokens include the end-of-document token."
        )
    )
    matrix = _matrix(rows)
    return Section("languages", "Languages", joined([*body, matrix] if matrix else body))


def density_section(view: View) -> Section:
    """Return how many bytes of text a token stands for, by language."""
    rows = [
        (language_name(language), outcomes[KEPT].text_bytes / outcomes[KEPT].tokens, outcomes[KEPT])
        for language, outcomes in view.languages.items()
        if KEPT in outcomes and outcomes[KEPT].tokens >= _FEWEST_TOKENS
    ]
    rows.sort(key=lambda row: (-row[1], row[0]))
    if not rows:
        text = f"No language has {whole(_FEWEST_TOKENS)} tokens, below which the ratio is an accident."
        return Section("density", "Bytes a token", element("p", text))
    shown = [(name, ratio, f"{ratio:.2f} bytes a token") for name, ratio, _ in rows[:_MOST_LANGUAGES]]
    said = "; ".join(f"{name} {ratio:.2f}" for name, ratio, _ in shown)
    cells = [(name, f"{ratio:.3f}", size(kept.text_bytes), whole(kept.tokens)) for name, ratio, kept in rows]
    body = [
        bars("density-picture", "Bytes of text a token by language", said, [(n, r, s) for n, r, s in shown]),
        note(
            "UTF-8 bytes of kept text divided by its tokens, end-of-document tokens included; languages with at least "
            f"{whole(_FEWEST_TOKENS)} tokens. A letter has one byte in Latin script, two in Cyrillic, Greek, Arabic "
            "and Hebrew, three in most scripts of Asia: compare a language with itself under another tokenizer."
        ),
        details("As a table", table("Bytes a token", ["language", "bytes a token", "text", "tokens"], cells)),
    ]
    return Section("density", "Bytes a token", joined(body))


def _largest(languages: Mapping[str | None, Mapping[str, Tally]]) -> list[tuple[str, Mapping[str, Tally]]]:
    """Return the largest languages, and all others as one."""
    rows = [(language_name(language), outcomes) for language, outcomes in languages.items()]
    if len(rows) <= _MOST_LANGUAGES:
        return rows
    others: dict[str, Tally] = {}
    for _, outcomes in rows[_MOST_LANGUAGES:]:
        for outcome, tally in outcomes.items():
            others.setdefault(outcome, Tally()).add(tally.documents, tally.text_bytes, tally.tokens)
    return [*rows[:_MOST_LANGUAGES], (f"{len(rows) - _MOST_LANGUAGES} others", others)]


def _all(outcomes: Mapping[str, Tally]) -> Tally:
    total = Tally()
    for tally in outcomes.values():
        total.add(tally.documents, tally.text_bytes, tally.tokens)
    return total


def _matrix(rows: list[tuple[str, Mapping[str, Tally]]]) -> Html | None:
    """Return which share of each language each stage or rule set dropped, shaded; None where nothing was dropped."""
    identified = [(name, outcomes) for name, outcomes in rows if name != language_name(None)]
    counted = [(name, _dropped_by_set(outcomes), _all(outcomes).documents) for name, outcomes in identified]
    sets = sorted({rules for _, dropped, _ in counted for rules in dropped}, key=set_order)
    if not sets:
        return None
    head = joined(
        [
            element("th", "language", scope="col"),
            *(element("th", stage_title(s), scope="col", class_="number") for s in sets),
        ]
    )
    lines = joined(
        element("tr", element("td", name), *(_heat(dropped.get(rules, 0), documents) for rules in sets))
        for name, dropped, documents in counted
    )
    caption = "Share of each language's documents that a stage or rule set dropped"
    inside = joined([element("caption", caption), element("thead", element("tr", head)), element("tbody", lines)])
    remark = note("A rule that fits one script and not another shows here as a dark cell.")
    scroll = element("div", element("table", inside), class_="scroll", tabindex="0", role="group", aria_label=caption)
    return joined([scroll, remark])


def _dropped_by_set(outcomes: Mapping[str, Tally]) -> dict[str, int]:
    dropped: dict[str, int] = {}
    for outcome, tally in outcomes.items():
        if outcome != KEPT:
            rules = outcome.partition(".")[0]
            dropped[rules] = dropped.get(rules, 0) + tally.documents
    return dropped


def _heat(dropped: int, documents: int) -> Html:
    strength = round(75 * dropped / documents) if documents else 0
    shade = f"background: color-mix(in srgb, var(--kept) {strength}%, transparent)"
    return element("td", share(dropped, documents) if dropped else "0", class_="number heat", style=shade)
