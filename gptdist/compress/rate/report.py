"""Win rates of a results file, by pair of models; no torch."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from gptdist.compress.rate.intervals import bootstrap_by_prompt, cohen_kappa, fleiss_kappa, wilson
from gptdist.compress.rate.store import BOTH_BAD, TIE, Store, Vote


@dataclass(frozen=True)
class PairReport:
    """What raters thought of two models."""

    models: tuple[str, str]
    """Names of first and second."""

    wins: tuple[int, int]
    ties: int
    both_bad: int
    win_rate: float | None
    """Wins of the first / votes that found one better; None where there is none."""

    interval: tuple[float, float]
    """95 %: Wilson's of one rater's votes; of several raters' by bootstrap over prompts, which they have in common."""

    interval_method: str
    raters: tuple[str, ...]
    prompts: int
    kappa: float | None
    """Cohen's of two raters, Fleiss' of more, over the prompts that all have rated."""

    common_prompts: int

    def tree(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def report(store: Store) -> list[PairReport]:
    """Return a report on each pair of models that has votes."""
    names = store.model_names()
    by_pair: dict[tuple[str, str], list[Vote]] = defaultdict(list)
    for vote in store.votes():
        first, second = sorted((vote.left_model, vote.right_model))
        by_pair[first, second].append(vote)
    order = list(names)
    reports = []
    for pair, votes in by_pair.items():
        models = sorted(pair, key=lambda model: order.index(model) if model in names else len(order))
        reports.append(_of_pair((models[0], models[1]), votes, names))
    return reports


def _of_pair(models: tuple[str, str], votes: Sequence[Vote], names: dict[str, str]) -> PairReport:
    found = Counter(vote.meaning for vote in votes)
    wins = (found[models[0]], found[models[1]])
    raters = tuple(sorted({vote.rater for vote in votes}))
    decided: dict[str, list[bool]] = defaultdict(list)
    for vote in votes:
        if vote.winner is not None:
            decided[vote.prompt_hash].append(vote.winner == models[0])
    is_shared = len(raters) > 1
    interval = bootstrap_by_prompt(decided) if is_shared else wilson(wins[0], sum(wins))
    kappa, common = _agreement(votes, raters)
    return PairReport(
        models=(names.get(models[0], models[0]), names.get(models[1], models[1])),
        wins=wins,
        ties=found[TIE],
        both_bad=found[BOTH_BAD],
        win_rate=wins[0] / sum(wins) if sum(wins) else None,
        interval=interval,
        interval_method="bootstrap over prompts" if is_shared else "Wilson",
        raters=raters,
        prompts=len({vote.prompt_hash for vote in votes}),
        kappa=kappa,
        common_prompts=common,
    )


def _agreement(votes: Sequence[Vote], raters: Sequence[str]) -> tuple[float | None, int]:
    """Return kappa, and over how many prompts; of three raters and more Fleiss'."""
    choices: dict[str, dict[str, str]] = defaultdict(dict)
    for vote in votes:
        choices[vote.prompt_hash][vote.rater] = vote.meaning
    common = [[chosen[rater] for rater in raters] for chosen in choices.values() if len(chosen) == len(raters)]
    if len(raters) < 2:
        return None, 0
    if len(raters) == 2:
        return cohen_kappa([(one, two) for one, two in common]), len(common)
    return fleiss_kappa(common), len(common)


def pair_agreements(store: Store) -> dict[str, float | None]:
    """Return Cohen's kappa of each two raters, over all prompts and pairs that both have rated."""
    choices: dict[str, dict[tuple[str, frozenset[str]], str]] = defaultdict(dict)
    for vote in store.votes():
        choices[vote.rater][vote.prompt_hash, frozenset((vote.left_model, vote.right_model))] = vote.meaning
    found = {}
    for one, two in combinations(sorted(choices), 2):
        common = choices[one].keys() & choices[two].keys()
        found[f"{one}, {two}"] = cohen_kappa(
            [(choices[one][key], choices[two][key]) for key in sorted(common, key=str)]
        )
    return found


def report_lines(reports: Sequence[PairReport]) -> list[str]:
    """Return the reports as text."""
    if not reports:
        return ["no votes yet"]
    lines = []
    for one in reports:
        low, high = one.interval
        rate = "-" if one.win_rate is None else f"{one.win_rate:.1%}"
        lines += [
            f"[1] {one.models[0]}",
            f"[2] {one.models[1]}",
            f"{'[1] better':<22} {one.wins[0]:>6}",
            f"{'[2] better':<22} {one.wins[1]:>6}",
            f"{'tie':<22} {one.ties:>6}",
            f"{'both bad':<22} {one.both_bad:>6}",
            f"{'win rate of [1]':<22} {rate:>6}   95 %: {low:.1%} to {high:.1%} ({one.interval_method})",
            f"{'prompts, raters':<22} {one.prompts:>6}, {len(one.raters)}: {', '.join(one.raters)}",
        ]
        if len(one.raters) > 1:
            kappa = "-" if one.kappa is None else f"{one.kappa:.3f}"
            name = "Cohen's" if len(one.raters) == 2 else "Fleiss'"
            lines.append(f"{name + ' kappa':<22} {kappa:>6}   over {one.common_prompts} prompts that all have rated")
    return [*lines, "win rate: wins / votes that found one better"]
