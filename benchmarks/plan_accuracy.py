"""The planner beside published runs, each row predicted by constants that were fitted without it.

``python -m benchmarks.plan_accuracy``: a ratio for each source; ``benchmarks.plan_page`` writes the page of all rows.
"""

import argparse
from collections.abc import Sequence

from benchmarks.comparison import Comparison, add_options, tell, write
from benchmarks.plan_fit import ROWS
from benchmarks.plan_page import held_out_scores
from gptdist.plan.constants import MEMORY_BAND, TIME_BAND
from gptdist.plan.published import read_published, source_name
from gptdist.plan.score import Score, errors_text


def comparisons(scores: Sequence[Score]) -> list[Comparison]:
    """Return predicted beside published, of each source and quantity."""
    found = []
    for source in sorted({source_name(score.run) for score in scores}):
        of_source = [score for score in scores if source_name(score.run) == source]
        times = [(score.seconds, score.run.step_seconds) for score in of_source]
        memories = [(score.gib, score.run.memory_gib) for score in of_source]
        for what, unit, pairs, band in (("step", "s", times, TIME_BAND), ("memory", "GiB", memories, MEMORY_BAND)):
            known = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
            if known:
                found.append(_comparison(f"{what}, predicted", source, unit, known, band))
    return found


def _comparison(name: str, source: str, unit: str, pairs: Sequence[tuple[float, float]], band: float) -> Comparison:
    errors = [ours / theirs - 1 for ours, theirs in pairs]
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    note = errors_text(errors, band)
    return Comparison(name, f"published: {source}", unit, ours, theirs, "equal", against="yardstick", note=note)


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    arguments = parser.parse_args()
    write(arguments.json, tell(comparisons(held_out_scores(read_published(ROWS)))))


if __name__ == "__main__":
    main()
