"""What a benchmark finds, as data: ours beside another's, a value for each round; written as JSON with ``--json``."""

import argparse
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

SAME = 5e-4
"""A ratio that is no further from 1, which prints as 1.000, is nobody's."""

Better = Literal["lower", "higher", "equal"]
Against = Literal["tool", "yardstick", "ourselves"]


@dataclass(frozen=True)
class Comparison:
    """One figure of ours beside another's."""

    name: str
    peer: str
    """What stands beside ours."""

    unit: str
    ours: Sequence[float]
    theirs: Sequence[float]
    """As many values as ours, measured by turns; empty where the peer is missing."""

    better: Better
    """Which values are; ``equal`` where ours is a prediction."""

    target: float | None = None
    """Of ours / theirs: at most for ``lower``, at least for ``higher``, and for ``equal`` the distance from 1."""

    against: Against = "tool"
    """``tool``: what one would use instead; ``yardstick``: what the machine or a formula gives, which nothing beats;
    ``ourselves``: another setting of gptdist."""

    note: str = ""
    missing: str = ""
    """Why there are no values of theirs."""

    def __post_init__(self) -> None:
        """Refuse what no ratio can be made of.

        Raises:
            ValueError: it has no values of ours, a value that is no number, theirs of zero, or theirs are missing
                without a reason.
        """
        bad = [value for value in (*self.ours, *self.theirs) if not math.isfinite(value)]
        if not self.ours or bad or 0 in self.theirs:
            raise ValueError(f"{self.name}: ours {self.ours}, theirs {self.theirs}; need numbers, theirs not zero")
        if bool(self.missing) == bool(self.theirs):
            raise ValueError(f"{self.name}: theirs {self.theirs}, missing: {self.missing!r}; need one of them")

    @property
    def ratios(self) -> list[float]:
        """Ours / theirs, round by round; of the medians where the rounds are not pairs."""
        if len(self.ours) == len(self.theirs):
            return [one / other for one, other in zip(self.ours, self.theirs, strict=True)]
        return [median(self.ours) / median(self.theirs)] if self.theirs else []

    @property
    def ratio(self) -> float:
        """The median over the rounds; not a number where theirs are missing."""
        return median(self.ratios) if self.theirs else math.nan

    @property
    def is_reached(self) -> bool | None:
        """Whether the target is; None without one."""
        if self.target is None or not self.theirs:
            return None
        if self.better == "equal":
            return abs(self.ratio - 1) <= self.target
        return self.ratio >= self.target if self.better == "higher" else self.ratio <= self.target

    @property
    def verdict(self) -> str:
        """``ours``, ``theirs`` or ``level`` (rounds that do not agree, or are the same); empty unless it is a tool."""
        if self.against != "tool" or not self.theirs or self.better == "equal":
            return ""
        sides = {(ratio > 1) == (self.better == "higher") for ratio in self.ratios if abs(ratio - 1) > SAME}
        return {frozenset({True}): "ours", frozenset({False}): "theirs"}.get(frozenset(sides), "level")

    @property
    def target_text(self) -> str:
        """The target as one reads it."""
        if self.target is None:
            return ""
        if self.better == "equal":
            return f"within {self.target:.0%}"
        return f"at {'least' if self.better == 'higher' else 'most'} {self.target:g}"

    def line(self) -> str:
        """Return it as printed."""
        if not self.theirs:
            return f"  {self.name + ' / ' + self.peer:<58}{median(self.ours):>12,.4g} {self.unit}; {self.missing}"
        said = "" if self.is_reached is None else f"  (target {self.target_text}, {reached_text(self.is_reached)})"
        spread = f"  ({min(self.ratios):.3f} to {max(self.ratios):.3f})" if len(self.ratios) > 1 else ""
        both = f"{median(self.ours):,.4g} and {median(self.theirs):,.4g} {self.unit}"
        note = f"  {self.note}" if self.note else ""
        return f"  {self.name + ' / ' + self.peer:<58}{self.ratio:>8.3f} x{spread}{said}  {both}{note}"


def reached_text(is_reached: bool) -> str:
    """Say whether a target is reached, so that a miss is seen."""
    return "reached" if is_reached else "MISSED"


def merged(rounds: Iterable[Sequence[Comparison]]) -> list[Comparison]:
    """Return the comparisons of several rounds, a value for each; what else they say is that of the last round."""
    found: dict[tuple[str, str], list[Comparison]] = {}
    for comparisons in rounds:
        for one in comparisons:
            found.setdefault((one.name, one.peer), []).append(one)
    return [
        Comparison(
            **vars(each[-1])
            | {side: [value for one in each for value in getattr(one, side)] for side in ("ours", "theirs")}
        )
        for each in found.values()
    ]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every comparison has."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there too")
    parser.add_argument("--quick", action="store_true", help="one round of a tiny size: does it run; no figures")


def write(path: Path | None, comparisons: Sequence[Comparison]) -> None:
    """Write comparisons where ``--json`` says."""
    if path is not None:
        path.write_text(json.dumps([asdict(one) for one in comparisons], indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> list[Comparison]:
    """Return what ``write`` wrote."""
    return [Comparison(**tree) for tree in json.loads(path.read_text(encoding="utf-8"))]


def tell(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Print each, and return them."""
    for one in comparisons:
        print(one.line(), flush=True)
    return list(comparisons)


def by_turns(first: Callable[[], Any], second: Callable[[], Any], *, is_backwards: bool) -> tuple[Any, Any]:
    """Return what both return, the second called first if it is so said."""
    if is_backwards:
        last = second()
        return first(), last
    return first(), second()
