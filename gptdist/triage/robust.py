"""How far a number is from ordinary ones, by their median, which a few odd ones do not move. Pure arithmetic."""

from collections.abc import Sequence
from statistics import median

MIN_NUMBERS = 8
"""Fewer ordinary numbers say nothing of how they vary."""

NORMAL_DEVIATIONS = 1.4826
"""Of normally distributed numbers, the standard deviation over the median distance from the median."""


def robust_z(value: float, ordinary: Sequence[float], floor: float) -> float | None:
    """Return robust standard deviations that ``value`` is above the median; None where too few are ordinary.

    The formula is (value - median) / max(1.4826 x median distance from the median, floor).

    Args:
        value: to judge.
        ordinary: numbers that it should be like.
        floor: least deviation: numbers that hardly vary make nothing odd of little.
    """
    if len(ordinary) < MIN_NUMBERS:
        return None
    middle = median(ordinary)
    deviation = NORMAL_DEVIATIONS * median(abs(one - middle) for one in ordinary)
    deviation = max(deviation, floor)
    return (value - middle) / deviation if deviation else 0.0
