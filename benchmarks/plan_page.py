"""Write docs/plan_accuracy.md and its picture: predicted against published, each row by constants fitted without it."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from ruamel.yaml import YAML

from benchmarks.plan_fit import ROWS, memory_group
from gptdist.plan.constants import FITTED, MEMORY_BAND, TIME_BAND, Constants
from gptdist.plan.published import PublishedRun, read_published, source_name
from gptdist.plan.score import Score, errors_text, score_of, summary_lines

HELD_OUT = ROWS.with_name("plan_held_out.yaml")
DOCS = Path(__file__).parents[1] / "docs"
PICTURE = "images/plan_accuracy.svg"

INTRODUCTION = """# Predicted against published

Made by `python -m benchmarks.plan_page` from `benchmarks/published_runs.csv`; a test makes it again and compares. Every
time below is predicted with constants that were fitted **without any row of its source**, every memory without any row
of its table (nearly all rows that give memory are of one source, so holding out sources would leave nothing to fit on).
Errors are predicted / measured - 1.

![Predicted over measured, and the distribution of errors](images/plan_accuracy.svg)

What to know of these figures:

- The structure of the formulas was worked out by people who had these rows before them; only the constants are held
  out. Two of the guesses that constants fall back to, and how strongly they do, were set after a look at residuals.
- Rows whose note calls them suspect are left out. Where a row does not say its micro batch or its global batch, rules
  in `gptdist/plan/published.py` fill them in, the same for all rows. A row that does not say what is computed again has
  no memory here.
- No row is of this project: it was never run on a GPU. Its own memory is counted from its own engine and checked on a
  CPU (docs/training.md); of its time on GPUs, what is known is what these runs have in common.
"""


def held_out_constants() -> dict[str, Constants]:
    """Return the constants without each source (and table), by name."""
    return {name: Constants(**values) for name, values in YAML(typ="safe").load(HELD_OUT.read_text("utf-8")).items()}


def held_out_scores(runs: Sequence[PublishedRun]) -> list[Score]:
    """Predict each run's time without its source, and its memory without its table."""
    held, found = held_out_constants(), []
    for run in runs:
        for_memory = held.get(f"memory without {memory_group(run)}", FITTED)
        found.append(score_of(run, held[source_name(run)], for_memory))
    return found


def page(runs: Sequence[PublishedRun]) -> str:
    """Return the page."""
    held = held_out_scores(runs)
    lines = [INTRODUCTION, "## Held out", "", "```text", *summary_lines(held), "```", ""]
    constants = held_out_constants()
    strict = [score_of(run, FITTED, constants[source_name(run)]) for run in runs]
    lines += ["Memory with constants fitted without any row of its source, that is on next to nothing:", "", "```text"]
    summary = summary_lines(strict)
    lines += [*summary[next(n for n, line in enumerate(summary) if line.startswith("memory:")) :], "```", ""]
    fitted = [score_of(run, FITTED, FITTED) for run in runs]
    lines += ["## With the constants that the planner uses, fitted on all rows", "", "```text", *summary_lines(fitted)]
    lines += ["```", "", "## Row by row, held out", "", *_table(held), ""]
    return "\n".join(lines)


def _table(scores: Sequence[Score]) -> list[str]:
    lines = [
        "| row | source | run | device | layout | step, s | predicted | error | memory, GiB | predicted | error |",
        "| ---: | --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for score in scores:
        run = score.run
        cells = [
            str(run.row),
            source_name(run),
            run.label,
            run.device.name,
            str(run.workload.layout).partition(" = ")[2],
            _shown(run.step_seconds, ".3f"),
            f"{score.seconds:.3f}",
            _shown(score.time_error, "+.1%"),
            "out of memory" if run.ran_out else _shown(run.memory_gib, ".4g"),
            _shown(score.gib, ".1f"),
            _shown(score.memory_error, "+.1%"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def draw(runs: Sequence[PublishedRun], path: Path) -> int:
    """Draw the picture into ``path``; return how many points it has."""
    scores = held_out_scores(runs)
    times = [score for score in scores if score.time_error is not None]
    memories = [score for score in scores if score.memory_error is not None]
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "plan", "font.size": 9})
    figure, axes = plt.subplots(2, 2, figsize=(10, 8), constrained_layout=True)
    _points(axes[0][0], times, "step, s", is_time=True)
    _points(axes[0][1], memories, "memory of the fullest GPU, GiB", is_time=False)
    _distribution(axes[1][0], [score.time_error or 0.0 for score in times], TIME_BAND, "time")
    _distribution(axes[1][1], [score.memory_error or 0.0 for score in memories], MEMORY_BAND, "memory")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return len(times) + len(memories)


def _points(axes: Axes, scores: Sequence[Score], name: str, *, is_time: bool) -> None:
    """Draw predicted over measured, a colour for each source, with the band."""
    band = TIME_BAND if is_time else MEMORY_BAND
    for source in sorted({source_name(score.run) for score in scores}):
        chosen = [score for score in scores if source_name(score.run) == source]
        measured = [(score.run.step_seconds if is_time else score.run.memory_gib) or 0.0 for score in chosen]
        predicted = [(score.seconds if is_time else score.gib) or 0.0 for score in chosen]
        axes.scatter(measured, predicted, s=14, alpha=0.7, label=f"{source} ({len(chosen)})")
    low, high = axes.get_xlim()
    ends = [max(low, 0.1), high]
    axes.plot(ends, ends, color="grey", linewidth=1)
    axes.fill_between(ends, [e * (1 - band) for e in ends], [e * (1 + band) for e in ends], color="grey", alpha=0.2)
    if is_time:
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.set_xlabel(f"published: {name}")
    axes.set_ylabel("predicted, held out")
    axes.legend(fontsize=7)


def _distribution(axes: Axes, errors: Sequence[float], band: float, name: str) -> None:
    edge = max(0.4, quantiles([abs(error) for error in errors], n=100)[-1])
    axes.hist(errors, bins=40, range=(-edge, edge), color="tab:blue", alpha=0.8)
    axes.axvspan(-band, band, color="grey", alpha=0.2)
    axes.set_xlabel(f"{name}: predicted / published - 1; grey: within {band:.0%}")
    axes.set_ylabel("rows")
    axes.set_title(errors_text(errors, band), fontsize=8)


def main() -> None:
    """Write the page and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=DOCS, help="folder")
    arguments = parser.parse_args()
    runs = read_published(ROWS)
    (arguments.output / "plan_accuracy.md").write_text(page(runs), encoding="utf-8")
    draw(runs, arguments.output / PICTURE)


if __name__ == "__main__":
    main()
