"""Fit the planner's constants on published runs, and say how well those fitted without a source predict it."""

import argparse
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML
from scipy.optimize import least_squares

from gptdist.plan.constants import MEMORY_CONSTANTS, PRIOR, TIME_CONSTANTS, Constants
from gptdist.plan.published import PublishedRun, read_published, source_name
from gptdist.plan.published_memory import published_bytes
from gptdist.plan.step_time import step_time

ROWS = Path(__file__).with_name("published_runs.csv")
PULL = 0.3
"""Weight of a constant's distance from its guess, in units of its logarithm: decides only where rows say nothing."""

SOFT = 0.03
"""Relative error from which on a row counts less than by its square."""

HEADING = """# Made by `python -m benchmarks.plan_fit`: constants on all rows, without each source, and of memory
# without each table.
"""

Measure = Callable[[PublishedRun, Constants], float]


def seconds_ratio(run: PublishedRun, constants: Constants) -> float:
    """Return predicted over measured seconds of a step."""
    assert run.step_seconds is not None, "a row without time"
    return step_time(run.workload, run.device, run.network, constants).total / run.step_seconds


def memory_ratio(run: PublishedRun, constants: Constants) -> float:
    """Return predicted over measured memory."""
    assert run.memory_gib is not None, "a row without memory"
    return published_bytes(run, constants) / 2**30 / run.memory_gib


def errors(
    runs: Sequence[PublishedRun], names: Sequence[str], ratio: Measure, constants: Constants, *, pull: float = PULL
) -> list[float]:
    """Return what the fit makes small: a row's weighted error, and how far each constant is from its guess."""
    counts = Counter(source_name(run) for run in runs)
    rows = [math.log(ratio(run, constants)) * counts[source_name(run)] ** -0.25 for run in runs]
    return rows + [pull * math.log(getattr(constants, name) / getattr(PRIOR, name)) for name in names]


def cost(runs: Sequence[PublishedRun], names: Sequence[str], ratio: Measure, constants: Constants) -> float:
    """Return the sum that the fit makes small."""
    scaled = np.array(errors(runs, names, ratio, constants)) / SOFT
    return float(np.sum(np.sqrt(1 + scaled**2) - 1))


def fitted(
    runs: Sequence[PublishedRun], names: Sequence[str], ratio: Measure, start: Constants, *, pull: float = PULL
) -> Constants:
    """Return ``start`` with the constants of ``names`` fitted: a source's weight is the root of its rows."""
    guess = np.array([getattr(PRIOR, name) for name in names])

    def at(logarithms: np.ndarray) -> Constants:
        return replace(start, **dict(zip(names, map(float, guess * np.exp(logarithms)), strict=True)))

    def wrong(logarithms: np.ndarray) -> list[float]:
        return errors(runs, names, ratio, at(logarithms), pull=pull)

    return at(least_squares(wrong, np.zeros(len(names)), loss="soft_l1", f_scale=SOFT).x)


def fit_all(runs: Sequence[PublishedRun]) -> Constants:
    """Return the constants of time and memory, fitted on all of ``runs``."""
    constants = fitted([run for run in runs if run.step_seconds], TIME_CONSTANTS, seconds_ratio, PRIOR)
    with_memory = [run for run in runs if run.memory_gib]
    return fitted(with_memory, MEMORY_CONSTANTS, memory_ratio, constants)


def memory_group(run: PublishedRun) -> str:
    """Return which runs are held out together for memory: a table, as nearly all rows with memory are of one source."""
    return f"{source_name(run)}, {run.table}"


def main() -> None:
    """Print the constants fitted on all rows, and write those without each source."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--output", type=Path, default=ROWS.with_name("plan_held_out.yaml"))
    arguments = parser.parse_args()
    runs = read_published(arguments.rows)
    found = {"all": fit_all(runs)}
    for source in sorted({source_name(run) for run in runs}):
        found[source] = fit_all([run for run in runs if source_name(run) != source])
        print(source, flush=True)
    for table in sorted({memory_group(run) for run in runs if run.memory_gib}):
        rest = [run for run in runs if run.memory_gib and memory_group(run) != table]
        found[f"memory without {table}"] = fitted(rest, MEMORY_CONSTANTS, memory_ratio, found["all"])
    tree = {
        name: {key: float(f"{getattr(constants, key):.4g}") for key in (*TIME_CONSTANTS, *MEMORY_CONSTANTS)}
        for name, constants in found.items()
    }
    with arguments.output.open("w", encoding="utf-8") as file:
        file.write(HEADING)
        YAML(typ="safe").dump(tree, file)
    print(tree["all"])


if __name__ == "__main__":
    main()
