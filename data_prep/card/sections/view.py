"""What every section of the card is made from."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from data_prep.account import KEPT
from data_prep.card.figures import Figures, Tally
from data_prep.card.flow import StageFlow, by_language, stage_flows
from data_prep.card.markup import Html, element
from data_prep.card.merge import merge_summaries
from data_prep.card.splits import split_sizes


@dataclass(frozen=True)
class View:
    """An account and what was counted in it."""

    summary: Mapping[str, Any]
    figures: Figures

    @cached_property
    def sums(self) -> dict[str, Any]:
        """The sources' summaries, added up."""
        return merge_summaries(self.summary["sources"])

    @cached_property
    def flows(self) -> list[StageFlow]:
        """The stages, all sources together."""
        return stage_flows(self.sums["passages"], self.figures)

    @cached_property
    def languages(self) -> dict[str | None, dict[str, Tally]]:
        """Outcomes of each language."""
        return by_language(self.figures)

    @cached_property
    def kept(self) -> Tally:
        """All that was kept, by the rows."""
        total = Tally()
        for (_, outcome, _), tally in self.figures.cells.items():
            if outcome == KEPT:
                total.add(tally.documents, tally.text_bytes, tally.tokens)
        return total

    @cached_property
    def splits(self) -> Tally:
        """All that the shards hold, by the summary; without padding."""
        total = Tally()
        for split in split_sizes(self.summary):
            total.add(split.documents, split.text_bytes, split.tokens)
        return total

    def as_data(self) -> dict[str, Any]:
        """Return the summary and the counts as plain data."""
        figures = self.figures
        return {
            "summary": dict(self.summary),
            "languages": {
                language_name(language): {outcome: asdict(tally) for outcome, tally in outcomes.items()}
                for language, outcomes in self.languages.items()
            },
            "stages": [asdict(flow) for flow in self.flows],
            "places": [{"place": place, **asdict(fates)} for place, fates in figures.places],
            "num_places": figures.num_places,
            "duplicate_groups": [asdict(group) for group in figures.groups],
            "evaluation_hits": {name: asdict(hit) for name, hit in figures.hits.items()},
        }

    @property
    def num_records(self) -> int:
        """Records and documents that came in, damaged ones left out."""
        return sum(tally.documents for tally in self.figures.cells.values())


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    identity: str
    """Its anchor."""

    title: str
    body: Html


def note(text: str) -> Html:
    """Return a paragraph in small print: how a number is computed."""
    return element("p", text, class_="quiet")


def language_name(language: str | None) -> str:
    """Return how tables call a language."""
    return language or "not identified"
