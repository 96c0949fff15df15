"""All that a page shows of one or several runs, as plain data, from the records in their folders; no torch."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gptdist.checkpoint.find import step_folders
from gptdist.errors import ConfigError
from gptdist.report.attempts import (
    Ledger,
    attempts_of,
    is_training,
    marks_of,
    read_ledger,
    state_of,
    triage_command,
)
from gptdist.report.charts import Chart, charts_of
from gptdist.report.columns import MetricsFile, Table
from gptdist.report.parts import Checkpoints, plan_of, samples_of, sources_of
from gptdist.report.summary import end_values
from gptdist.report.thin import MOST_POINTS, curve, lost_rows, rows_of, stack
from gptdist.telemetry.ledger import LEDGER_NAME
from gptdist.telemetry.metrics import METRICS_NAME, SAMPLES_NAME

SPIKE_DEVIATIONS = 6.0
SPIKE_WINDOW = 64
"""Lines before, whose mean and standard deviation a loss is compared with."""

SPIKE_SHARE = 0.1
"""Of the mean that a loss is above it at least: losses late in a run hardly vary."""

MOST_SPIKES = 100
MOST_CONFIG_CHARACTERS = 100_000


class RunRecords:
    """The records of one run, which may be written meanwhile."""

    def __init__(self, folder: Path, *, in_full: bool = False, device: str | None = None) -> None:
        """Read nothing yet.

        Args:
            folder: of the run.
            in_full: compare the hashes of checkpoints.
            device: that a rank had, for the plan.
        """
        self.folder, self._device = folder, device
        self._metrics = MetricsFile(folder / METRICS_NAME)
        self._checkpoints = Checkpoints(folder, in_full=in_full)
        self._stamp: object = None
        self.is_running = True

    def problem(self) -> str | None:
        """Return why nothing can be shown of the folder."""
        if not self.folder.is_dir():
            return f"{self.folder}: no such folder; name the folder of a run, such as runs/demo-cpu"
        names = [self.folder / name for name in (LEDGER_NAME, METRICS_NAME)]
        if any(path.is_file() and path.stat().st_size for path in names) or step_folders(self.folder / "checkpoints"):
            return None
        return f"{self.folder}: holds no ledger, no metrics and no checkpoint; name the folder of a run"

    def has_changed(self) -> bool:
        """Return whether any record is another than when this was last called, or time passes for a run that runs."""
        stamp = [_stamp(self.folder / name) for name in (METRICS_NAME, LEDGER_NAME, SAMPLES_NAME, "checkpoints")]
        is_new, self._stamp = stamp != self._stamp, stamp
        return is_new

    def data(self, most_points: int) -> dict[str, Any]:
        """Return what the page shows of the run, its curves with so many points each."""
        now = time.time()
        self._metrics.update()
        ledger, train = read_ledger(self.folder), self._metrics.tables["train"]
        self.is_running = is_training(self.folder, ledger, _newest_write(self.folder), now)
        attempts = attempts_of(ledger, train, is_running=self.is_running, now=now)
        start = ledger.starts[-1] if ledger.starts else {}
        state = state_of(attempts, is_running=self.is_running)
        tables = dict(self._metrics.tables)
        lost = {kind: lost_rows(table, ledger.first_steps) for kind, table in tables.items()}
        name = str(self.folder)
        return {
            "name": name,
            "state": state,
            "summary": end_values(tables, lost, attempts, ledger, state),
            "attempts": attempts,
            "marks": [*marks_of(ledger, name), *_spikes(train, lost.get("train"), ledger, name)],
            "checkpoints": self._checkpoints.rows(ledger.events),
            "sources": sources_of(start, train),
            "samples": samples_of(self.folder),
            "plan": plan_of(self.folder, ledger.starts, train, self._device),
            "config": _config_text(self.folder),
            "notes": self._notes(ledger, train),
            "curves": _curves(tables, ledger.first_steps, most_points),
            "constant": _constant(train),
            "tree": start.get("config") or {},
        }

    def _notes(self, ledger: Ledger, train: Table) -> list[str]:
        notes = [f"{problem}" for problem in ledger.problems[:5]]
        if len(ledger.problems) > len(notes):
            notes.append(f"{self.folder / LEDGER_NAME}: {len(ledger.problems) - 5} lines more like these")
        path = self.folder / METRICS_NAME
        if self._metrics.unreadable:
            notes.append(f"{path}: {self._metrics.unreadable} lines are no records and are left out")
        if self._metrics.has_open_line:
            notes.append(f"{path}: the last line has no end and is left out; it is being written, or a crash tore it")
        if not train.num_rows:
            notes.append(f"{path}: no line of training yet")
        return notes


def open_runs(folders: Sequence[Path], *, in_full: bool, device: str | None) -> list[RunRecords]:
    """Return the records of runs.

    Raises:
        ConfigError: folders are none of runs, all of them named, or one is named twice.
    """
    runs = [RunRecords(folder, in_full=in_full, device=device) for folder in folders]
    bad = [problem for run in runs if (problem := run.problem()) is not None]
    twice = sorted({str(folder) for folder in folders if folders.count(folder) > 1})
    bad += [f"{folder}: is named twice; name each run once" for folder in twice]
    if bad:
        raise ConfigError(bad)
    return runs


def report_data(runs: Sequence[RunRecords]) -> dict[str, Any]:
    """Return what a page shows of ``runs``."""
    found = [run.data(max(200, MOST_POINTS // len(runs))) for run in runs]
    names = dict.fromkeys(name for run in found for name in run["curves"])
    constant = set.intersection(*(set(run.pop("constant")) for run in found))
    charts = charts_of([name for name in names if not name.startswith("stack/")], constant)
    for run in found:
        run["curves"] = {name: run["curves"][name] for name in _drawn(charts) if name in run["curves"]}
    trees = [run.pop("tree") for run in found]
    return {
        "made": time.time(),
        "charts": [chart.tree() for chart in charts],
        "differences": _differences(trees) if len(found) > 1 else [],
        "runs": found,
    }


def _drawn(charts: Sequence[Chart]) -> list[str]:
    lines = [key for chart in charts if chart.mode == "lines" for key, _ in chart.lines]
    return lines + [f"stack/{chart.key}" for chart in charts if chart.mode == "stack"]


def _curves(tables: Mapping[str, Table], first_steps: dict[int, int], most_points: int) -> dict[str, Any]:
    """Return every number that has values as curves, and what is stacked."""
    found: dict[str, Any] = {}
    train = tables.get("train", Table())
    for kind, table in tables.items():
        rows = rows_of(table, train, first_steps, most_points)
        for name in table.names:
            curves = curve(rows, name) if name not in {"attempt", "step"} else []
            if curves:
                found[f"{kind}/{name}"] = curves
        for chart in charts_of([f"{kind}/{name}" for name in table.names]):
            if chart.mode == "stack":
                found[f"stack/{chart.key}"] = stack(rows, [key.partition("/")[2] for key, _ in chart.lines])
    return found


def _constant(train: Table) -> list[str]:
    return [f"train/{name}" for name in train.names if len(np.unique(train.column(name))) == 1]


def _spikes(
    train: Table, lost: np.ndarray[Any, np.dtype[np.bool_]] | None, ledger: Ledger, run: str
) -> list[dict[str, Any]]:
    """Return losses far above the lines before them that no guard has refused; times are not known of them."""
    if lost is None or train.num_rows <= SPIKE_WINDOW:
        return []
    kept = ~lost & np.isfinite(train.column("loss"))
    loss, step, attempt = (train.column(name)[kept] for name in ("loss", "step", "attempt"))
    if len(loss) <= SPIKE_WINDOW:
        return []
    # Sums of all before each, minus those of all before its window: no loop over a million lines.
    sums, squares = (np.concatenate([[0.0], np.cumsum(values)]) for values in (loss, loss * loss))
    before = np.arange(SPIKE_WINDOW, len(loss))
    mean = (sums[before] - sums[before - SPIKE_WINDOW]) / SPIKE_WINDOW
    variance = (squares[before] - squares[before - SPIKE_WINDOW]) / SPIKE_WINDOW - mean * mean
    above = loss[before] - mean
    is_spike = (above > SPIKE_DEVIATIONS * np.sqrt(np.clip(variance, 0.0, None))) & (above > SPIKE_SHARE * mean)
    skipped = {one["step"] for one in ledger.events if one.get("event") == "skip"}
    found = []
    for place in np.flatnonzero(is_spike)[-MOST_SPIKES:].tolist():
        number, row = int(step[before[place]]), int(before[place])
        if number not in skipped:
            found.append(
                {
                    "kind": "spike",
                    "attempt": int(attempt[row]),
                    "step": number,
                    "time": None,
                    "text": f"loss {loss[row]:.4g}, the {SPIKE_WINDOW} lines before have a mean of {mean[place]:.4g}",
                    "command": triage_command(run, number),
                }
            )
    return found


def _differences(trees: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return each key of the configs that is not the same in all runs, with its values."""
    flat = [_flat(tree, "") for tree in trees]
    keys = sorted({key for one in flat for key in one})
    rows = [[key, *(one.get(key, "not set") for one in flat)] for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def _flat(tree: Mapping[str, Any], prefix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return found


def _config_text(folder: Path) -> str:
    try:
        return (folder / "config.yaml").read_text(encoding="utf-8", errors="replace")[:MOST_CONFIG_CHARACTERS]
    except OSError:
        return ""


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_mtime_ns, found.st_size


def _newest_write(folder: Path) -> float:
    return max(_stamp(folder / name)[0] for name in (METRICS_NAME, LEDGER_NAME)) / 1e9
