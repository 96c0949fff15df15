"""Win rates with their uncertainty, and how far raters agree; no torch."""

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence

Z_95 = 1.959963984540054
"""Standard normal quantile of 0.975."""

BOOTSTRAP_ROUNDS = 2000


def wilson(wins: int, votes: int, z: float = Z_95) -> tuple[float, float]:
    """Return the interval of a win rate; (0, 1) where nobody voted.

    Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference", without correction for
    continuity.
    """
    if not votes:
        return 0.0, 1.0
    rate, square = wins / votes, z * z / votes
    middle = (rate + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(rate * (1 - rate) / votes + square / (4 * votes))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap_by_prompt(votes: Mapping[str, Sequence[bool]], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of a win rate where votes on one prompt are not independent: prompts are resampled.

    Args:
        votes: of each prompt, whether each decided vote was a win.
        seed: of the resampling.

    Source: percentile bootstrap over clusters; Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter
    13.
    """
    groups = [group for group in votes.values() if group]
    if not groups:
        return 0.0, 1.0
    choose = random.Random(seed)
    rates = []
    for _ in range(BOOTSTRAP_ROUNDS):
        drawn = choose.choices(groups, k=len(groups))
        rates.append(sum(map(sum, drawn)) / sum(map(len, drawn)))
    rates.sort()
    return rates[int(0.025 * BOOTSTRAP_ROUNDS)], rates[int(0.975 * BOOTSTRAP_ROUNDS)]


def cohen_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Return how far two raters agree beyond chance, from their choices on common prompts; None where that is nothing.

    Source: Cohen 1960, "A Coefficient of Agreement for Nominal Scales".
    """
    if not pairs:
        return None
    agreed = sum(one == two for one, two in pairs) / len(pairs)
    first, second = Counter(one for one, _ in pairs), Counter(two for _, two in pairs)
    by_chance = sum(first[choice] * second[choice] for choice in first) / len(pairs) ** 2
    return None if by_chance == 1.0 else (agreed - by_chance) / (1.0 - by_chance)


def fleiss_kappa(choices: Sequence[Sequence[str]]) -> float | None:
    """Return how far raters agree beyond chance; each prompt has as many choices. None where that is nothing.

    Source: Fleiss 1971, "Measuring Nominal Scale Agreement Among Many Raters".
    """
    if not choices or len(choices[0]) < 2:
        return None
    raters = len(choices[0])
    counts = [Counter(prompt) for prompt in choices]
    agreed = [sum(n * (n - 1) for n in one.values()) / (raters * (raters - 1)) for one in counts]
    total: Counter[str] = sum(counts, Counter())
    by_chance = sum((n / (raters * len(choices))) ** 2 for n in total.values())
    return None if by_chance == 1.0 else (math.fsum(agreed) / len(agreed) - by_chance) / (1.0 - by_chance)
