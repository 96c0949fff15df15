"""A plan against what a run measured: where they part, and constants with which they would not."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from gptdist.config.run import RunConfig
from gptdist.errors import ConfigError
from gptdist.plan.projection import Cluster, Projection
from gptdist.telemetry.ledger import LEDGER_NAME
from gptdist.telemetry.metrics import METRICS_NAME

WARM_UP_LINES = 1
"""Lines of metrics that are left out: the first steps take memory and open files for the first time."""

GIB = 2**30

TERMS = {
    "forward and backward": ("matmul", "attention", "output", "elementwise", "launch", "pipeline_bubble"),
    "communication": (
        "tensor_parallel",
        "context_parallel",
        "expert_parallel",
        "pipeline_transfer",
        "data_parallel",
    ),
    "optimizer": ("optimizer",),
    "checkpoint": ("checkpoint",),
    "data and the rest": (),
}
"""What a run's clock tells apart, and the parts of a plan that it is made of."""

MEASURED = {
    "forward and backward": ("forward_backward_seconds",),
    "communication": ("communication_seconds",),
    "optimizer": ("optimizer_seconds",),
    "checkpoint": ("checkpoint_seconds",),
    "data and the rest": ("data_seconds", "other_seconds"),
}
"""Keys of metrics.jsonl for each, seconds a step."""


@dataclass(frozen=True)
class MeasuredRun:
    """What the last attempt of a run measured that got beyond its first lines."""

    folder: Path
    config: RunConfig
    world_size: int
    attempt: int
    steps: tuple[int, int]
    """First and last step of the lines that are counted."""

    num_lines: int
    seconds: dict[str, float]
    """Of a step, by term: the median over lines."""

    peak_bytes: float
    """Of the rank that needed most."""


def read_run(folder: Path) -> MeasuredRun:
    """Return what a run measured.

    Raises:
        ConfigError: the folder is no run's, its records cannot be read, or it has not run long enough.
    """
    starts = [record for record in _records(folder / LEDGER_NAME) if record.get("event") == "start"]
    rows = [row for row in _records(folder / METRICS_NAME) if row.get("kind") == "train"]
    for start in reversed(starts):
        counted = [row for row in rows if row.get("attempt") == start.get("attempt")][WARM_UP_LINES:]
        if counted:
            return _measured(folder, start, counted)
    raise ConfigError(
        [
            f"{folder}: no attempt has more than {WARM_UP_LINES} line of training in {METRICS_NAME}; let it run on, or "
            f"lower intervals.log_steps"
        ]
    )


def _records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file of JSON lines; a last line that a crash cut short is left out."""
    try:
        lines = path.read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError([f"{path}: no such file; name the folder of a run"]) from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            if number == len(lines):
                break
            raise ConfigError([f"{path}:{number}: is no JSON; the file is damaged"]) from None
        if isinstance(record, dict):
            found.append(record)
    return found


def _measured(folder: Path, start: dict[str, Any], rows: Sequence[dict[str, Any]]) -> MeasuredRun:
    try:
        config = RunConfig.from_tree(start["config"], origin=str(folder / LEDGER_NAME))
        seconds = {
            term: median(sum(float(row.get(key, 0.0)) for key in keys) for row in rows)
            for term, keys in MEASURED.items()
        }
        return MeasuredRun(
            folder=folder,
            config=config,
            world_size=int(start["world_size"]),
            attempt=int(start["attempt"]),
            steps=(int(rows[0]["step"]), int(rows[-1]["step"])),
            num_lines=len(rows),
            seconds=seconds,
            peak_bytes=GIB * max(float(row.get("peak_memory_gib") or 0.0) for row in rows),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            [f"{folder}: its records are of another version ({error!r}); plan with the version that wrote them"]
        ) from None


@dataclass(frozen=True)
class Comparison:
    """A plan beside the run."""

    run: MeasuredRun
    plan: Projection

    def planned(self, term: str) -> float:
        """Return planned seconds of a term."""
        return sum(getattr(self.plan.time, part) for part in TERMS[term])

    @property
    def measured_total(self) -> float:
        """Measured seconds of a step, evaluation left out."""
        return sum(self.run.seconds.values())

    @property
    def most_off(self) -> str:
        """The term that is furthest off, in seconds."""
        return max(TERMS, key=lambda term: abs(self.planned(term) - self.run.seconds[term]))

    def refit(self) -> dict[str, float]:
        """Return the constants that this run can tell, as they would have to be for its terms to come out."""
        constants, device = self.plan.cluster.constants, self.plan.cluster.device
        found: dict[str, float] = {}
        slower = _ratio(self.run.seconds["forward and backward"], self.planned("forward and backward"))
        for name in _rates(device.architecture):
            found[name] = getattr(constants, name) / slower
        for name in ("elementwise_bytes", "launch_seconds") if self.plan.cluster.on_gpu else ("elementwise_bytes",):
            found[name] = getattr(constants, name) * slower
        if self.planned("communication"):
            slower = _ratio(self.run.seconds["communication"], self.planned("communication"))
            names = ("link_fraction", "network_fraction") if self.plan.cluster.num_nodes > 1 else ("link_fraction",)
            found |= {name: getattr(constants, name) / slower for name in names}
        slower = _ratio(self.run.seconds["optimizer"], self.planned("optimizer"))
        found["optimizer_bytes"] = constants.optimizer_bytes * slower
        rest = "framework_bytes" if self.plan.cluster.on_gpu else "process_bytes"
        held = getattr(constants, rest) + self.run.peak_bytes - self.plan.peak.total
        if self.run.peak_bytes and held > 0:
            found[rest] = held
        return found

    def tree(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "attempt": self.run.attempt,
            "steps": list(self.run.steps),
            "lines": self.run.num_lines,
            "measured_seconds": self.run.seconds | {"total": self.measured_total},
            "planned_seconds": {term: self.planned(term) for term in TERMS} | {"total": self.plan.time.total},
            "measured_peak_bytes": self.run.peak_bytes,
            "planned_peak_bytes": self.plan.peak.total,
            "most_off": self.most_off,
            "refit": self.refit(),
        }

    def lines(self) -> list[str]:
        """Return it as text."""
        first, last = self.run.steps
        shown = [
            f"attempt {self.run.attempt} of {self.run.folder}: medians of {self.run.num_lines} lines, steps {first} to "
            f"{last}; the first {WARM_UP_LINES} left out",
            f"{self.plan.layout} of {self.plan.cluster.device.name}",
            "                        measured    planned  planned / measured",
        ]
        shown += [_line(term, self.run.seconds[term], self.planned(term), "s") for term in TERMS]
        shown.append(_line("step", self.measured_total, self.plan.time.total, "s"))
        shown.append(_line("memory of a rank", self.run.peak_bytes / GIB, self.plan.peak.total / GIB, "GiB"))
        gap = self.planned(self.most_off) - self.run.seconds[self.most_off]
        shown.append(f"most off: {self.most_off}, planned {abs(gap):.4g} s too {'long' if gap > 0 else 'short'}")
        shown.append("constants that fit this run, and it alone:")
        constants = self.plan.cluster.constants
        shown += [f"  {name}: {getattr(constants, name):.4g} -> {value:.4g}" for name, value in self.refit().items()]
        return shown


def _line(name: str, measured: float, planned: float, unit: str) -> str:
    ratio = f"{planned / measured:.2f}" if measured else "-"
    return f"  {name:20} {measured:9.4f} {unit:3} {planned:9.4f} {unit:3} {ratio:>8}"


def _ratio(measured: float, planned: float) -> float:
    """Return measured over planned; 1 where either is nothing, and a constant cannot be told."""
    return measured / planned if measured > 0 and planned > 0 else 1.0


def _rates(architecture: str) -> tuple[str, ...]:
    match architecture:
        case "cpu":
            return ("matmul_cpu", "attention_cpu")
        case "ampere" | "volta":
            return ("matmul_ampere", "attention_ampere")
        case _:
            return ("matmul_hopper", "attention_cudnn")


def constants_text(found: dict[str, float], run: MeasuredRun) -> str:
    """Return a file for ``--constants``."""
    lines = [f"# Refitted on attempt {run.attempt} of {run.folder.name}, steps {run.steps[0]} to {run.steps[1]}."]
    return "\n".join([*lines, *(f"{name}: {value:.6g}" for name, value in found.items()), ""])


def cluster_of(run: MeasuredRun, cluster: Cluster) -> Cluster:
    """Return ``cluster`` with as many nodes as the run had."""
    ranks = run.config.launch.ranks_per_node
    return Cluster(
        cluster.device, max(1, run.world_size // ranks), min(ranks, run.world_size), cluster.network, cluster.constants
    )
