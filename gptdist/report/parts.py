"""What a run has beside its curves: checkpoints, data, texts, and the plan of it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gptdist.checkpoint.find import step_folders, step_of
from gptdist.checkpoint.manifest import MANIFEST_NAME, read_manifest
from gptdist.checkpoint.verify import quick_problems, verify
from gptdist.config.run import RunConfig
from gptdist.errors import CheckpointError, GptDistError
from gptdist.plan.constants import FITTED
from gptdist.plan.device import find_device
from gptdist.plan.measured import GIB, MEASURED, TERMS, WARM_UP_LINES, Comparison, MeasuredRun, cluster_of
from gptdist.plan.projection import Cluster, project
from gptdist.report.columns import Table
from gptdist.report.thin import rounded
from gptdist.telemetry.ledger import SAVED, read_json_lines
from gptdist.telemetry.metrics import SAMPLES_NAME

MOST_GONE = 200
"""Checkpoints on a page that are no longer there; of more the newest."""

MOST_TEXTS = 120
"""Generated texts on a page: those of the newest step, and of others spread over the run."""

MOST_CHARACTERS = 2000
"""Of a generated text."""

CPU = "cpu"


class Checkpoints:
    """The checkpoints of a run; each is looked at once, as long as its manifest stays as it is."""

    def __init__(self, run: Path, *, in_full: bool) -> None:
        """Look at nothing yet; ``in_full`` compares hashes, which reads every file."""
        self._run, self._in_full = run, in_full
        self._seen: dict[tuple[str, int], dict[str, Any]] = {}

    def rows(self, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return checkpoints, newest first: those on the disk, and those that the ledger alone knows."""
        saved = {one["step"]: one for one in events if one.get("event") == SAVED and isinstance(one.get("step"), int)}
        found: dict[int, dict[str, Any]] = {}
        for folder in step_folders(self._run / "checkpoints"):
            row = self._row(folder)
            if row is not None:
                found[step_of(folder)] = row
        gone = sorted(saved.keys() - found.keys())[-MOST_GONE:]
        for step in gone:
            found[step] = {"step": step, "bytes": saved[step].get("bytes"), "state": "not there", "problems": []}
        for step, row in found.items():
            event = saved.get(step, {})
            row |= {"time": event.get("time"), "write_seconds": event.get("write_seconds")}
        return [found[step] for step in sorted(found, reverse=True)]

    def _row(self, folder: Path) -> dict[str, Any] | None:
        try:
            key = (folder.name, (folder / MANIFEST_NAME).stat().st_mtime_ns)
        except OSError:
            key = (folder.name, 0)
        if key not in self._seen:
            row = self._look(folder)
            if not folder.is_dir():  # it was deleted meanwhile
                return None
            self._seen[key] = row
        return dict(self._seen[key])

    def _look(self, folder: Path) -> dict[str, Any]:
        row: dict[str, Any] = {"step": step_of(folder), "folder": str(folder)}
        try:
            manifest = read_manifest(folder)
        except CheckpointError as error:
            return row | {"bytes": None, "state": "damaged", "problems": [str(error)]}
        problems = verify(folder) if self._in_full else quick_problems(folder, manifest)
        sound = "whole: every hash compared" if self._in_full else "files and sizes are right"
        return row | {
            "bytes": sum(file.num_bytes for file in manifest.files),
            "tokens": manifest.progress.consumed_tokens,
            "loss": manifest.progress.loss,
            "validation_loss": manifest.progress.validation_loss,
            "state": "damaged" if problems else sound,
            "problems": problems[:5],
        }


def sources_of(start: Mapping[str, Any], train: Table) -> list[dict[str, Any]]:
    """Return each source of the newest attempt: its share of the samples, and how often it has been read."""
    config, shares = start.get("config"), start.get("data_shares")
    data = config.get("data", {}) if isinstance(config, dict) else {}
    found = []
    for source in data.get("sources", []):
        path = str(source.get("path", ""))
        name = str(source.get("name") or Path(path).name)
        epochs = train.column(f"epochs_{name}")
        read = epochs[np.isfinite(epochs)]
        found.append(
            {
                "name": name,
                "path": path,
                "weight": source.get("weight"),
                "share": shares.get(name) if isinstance(shares, dict) else None,
                "epochs": float(read[-1]) if len(read) else None,
            }
        )
    return found


def samples_of(run: Path) -> list[dict[str, Any]]:
    """Return generated texts by step, newest first; of many steps the newest and some spread over the run."""
    by_step: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in read_json_lines(run / SAMPLES_NAME):
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            by_step[row["step"]].append(row)
    if not by_step:
        return []
    steps = sorted(by_step)
    each = max(len(rows) for rows in by_step.values())
    count = max(1, min(len(steps), MOST_TEXTS // max(1, each)))
    chosen = {steps[-1 - round(place * (len(steps) - 1) / max(1, count - 1))] for place in range(count)}
    return [
        {
            "step": step,
            "texts": [
                {
                    "attempt": row.get("attempt"),
                    "prompt": str(row.get("prompt", ""))[:MOST_CHARACTERS],
                    "text": str(row.get("text", ""))[:MOST_CHARACTERS],
                }
                for row in by_step[step][-MOST_TEXTS:]
            ],
        }
        for step in sorted(chosen, reverse=True)
    ]


def plan_of(run: Path, starts: Sequence[Mapping[str, Any]], train: Table, device: str | None) -> dict[str, Any]:
    """Return the plan beside what was measured, or why there is none, as ``problem``.

    Args:
        run: folder.
        starts: of attempts.
        train: lines of training.
        device: that a rank had; none is a CPU, if the lines look like one.
    """
    try:
        found = _measured(run, starts, train)
        if found is None:
            return {"problem": f"no attempt has more than {WARM_UP_LINES} line of training yet"}
        if device is None and not np.isfinite(train.column("communication_seconds")).any():
            return {"problem": "the run was on GPUs, whose kind it does not say; name it with --device"}
        cluster = cluster_of(found, Cluster(find_device(device or CPU), 1, 1, None, FITTED))
        compared = Comparison(found, project(found.config, cluster))
    except GptDistError as error:
        return {"problem": "; ".join(error.problems)}
    rows = [[term, found.seconds[term], compared.planned(term), "s"] for term in TERMS]
    rows.append(["step", compared.measured_total, compared.plan.time.total, "s"])
    rows.append(["memory of a rank", found.peak_bytes / GIB, compared.plan.peak.total / GIB, "GiB"])
    return {
        "attempt": found.attempt,
        "steps": list(found.steps),
        "lines": found.num_lines,
        "device": cluster.device.name,
        "layout": str(compared.plan.layout),
        "rows": [[name, *rounded(np.array([measured, planned])), unit] for name, measured, planned, unit in rows],
    }


def _measured(run: Path, starts: Sequence[Mapping[str, Any]], train: Table) -> MeasuredRun | None:
    """Return medians of the newest attempt that has enough lines, as ``gptdist plan --from`` takes them."""
    attempt, step = train.column("attempt"), train.column("step")
    for start in reversed(starts):
        rows = np.flatnonzero(attempt == start["attempt"])[WARM_UP_LINES:]
        if not len(rows) or not isinstance(start.get("config"), dict):
            continue
        columns = {name: np.nan_to_num(train.column(name)[rows]) for names in MEASURED.values() for name in names}
        seconds = {term: float(np.median(sum(columns[name] for name in names))) for term, names in MEASURED.items()}
        return MeasuredRun(
            folder=run,
            config=RunConfig.from_tree(start["config"], origin=f"{run}: attempt {start['attempt']}"),
            world_size=int(start.get("world_size", 1)),
            attempt=start["attempt"],
            steps=(int(step[rows[0]]), int(step[rows[-1]])),
            num_lines=len(rows),
            seconds=seconds,
            peak_bytes=GIB * float(np.nan_to_num(train.column("peak_memory_gib")[rows]).max()),
        )
    return None
