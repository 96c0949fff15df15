"""The data card: one HTML file that shows what a run read, dropped and kept, and opens without a network."""

from pathlib import Path

from data_prep.card.figures import count_figures
from data_prep.card.folder import AccountFolder
from data_prep.card.markup import Html, element, joined
from data_prep.card.sections.findings import damage_section, evaluation_section, privacy_section
from data_prep.card.sections.lengths import lengths_section
from data_prep.card.sections.origin import duplicates_section, places_section
from data_prep.card.sections.overview import disagreement, funnel_section, sources_section, tiles
from data_prep.card.sections.run import run_section
from data_prep.card.sections.samples import samples_section
from data_prep.card.sections.text import density_section, languages_section
from data_prep.card.sections.view import Section, View
from data_prep.card.style import STYLE
from gptdist.durable import write_whole
from gptdist.errors import DataError

_SECTIONS = (
    funnel_section,
    sources_section,
    languages_section,
    lengths_section,
    density_section,
    places_section,
    duplicates_section,
    privacy_section,
    evaluation_section,
    damage_section,
    samples_section,
    run_section,
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The page needs no script and nothing from elsewhere; should hostile text ever get through, it can do nothing."""


def write_card(output_dir: Path, target: Path) -> None:
    """Write the data card of a finished run.

    Args:
        output_dir: the run's ``output_dir``.
        target: the HTML file, which appears whole or not at all.

    Raises:
        DataError: the run is not finished, its account is damaged, or the file cannot be written.
    """
    write_page(read_view(output_dir), target)


def read_view(output_dir: Path) -> View:
    """Return what the card of a finished run is made from.

    Raises:
        DataError: the run is not finished, or its account is damaged.
    """
    account = AccountFolder(output_dir)
    return View(account.summary, count_figures(account))


def write_page(view: View, target: Path) -> None:
    """Write the card.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        write_whole(target, page(view).encode())
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror}); name another file with --html") from None


def page(view: View) -> str:
    """Return the card."""
    sections = [make(view) for make in _SECTIONS]
    contents = element(
        "nav",
        element("ul", *(element("li", element("a", part.title, href=f"#{part.identity}")) for part in sections)),
        aria_label="Contents",
    )
    name = str(view.summary["name"])
    body = [
        element("header", element("h1", name), element("p", "Data card", class_="quiet"), tiles(view)),
        disagreement(view),
        contents,
        element("main", *map(_section, sections)),
    ]
    return f"<!doctype html>\n{_document(name, joined(body))}\n"


def _document(name: str, body: Html) -> Html:
    head = element(
        "head",
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", f"{name}: data card"),
        element("style", Html(STYLE)),
    )
    return element("html", head, element("body", body), lang="en")


def _section(part: Section) -> Html:
    return element(
        "section",
        element("h2", part.title, id=f"{part.identity}-title"),
        part.body,
        id=part.identity,
        aria_labelledby=f"{part.identity}-title",
    )
