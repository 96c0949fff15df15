"""What a rule says against a document."""

from typing import NamedTuple


class Verdict(NamedTuple):
    """The rule that a document falls to, and by what numbers."""

    rule: str
    value: float
    threshold: float


def above(rule: str, value: float, most: float | None) -> Verdict | None:
    """Return the verdict where ``value`` is above ``most``; without a threshold there is no rule."""
    return Verdict(rule, value, most) if most is not None and value > most else None


def below(rule: str, value: float, least: float | None) -> Verdict | None:
    """Return the verdict where ``value`` is below ``least``; without a threshold there is no rule."""
    return Verdict(rule, value, least) if least is not None and value < least else None
