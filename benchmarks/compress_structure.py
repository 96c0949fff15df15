"""Cut a trained model, distil it, and train the same shape from scratch on the same tokens.

``python -m benchmarks.compress_structure RUN --output DIR --steps N [--share 0.5] [--lr X]``: RUN is a trained run's
folder, whose data have to be there. Each run is ``gptdist launch local`` with the parent's data, batches, seed, layout
and N steps, so that all see the same tokens; what was stopped goes on where it was. Prints the validation loss of each;
the aim is that the distilled model's is below that of the one from scratch.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.comparison import Comparison, add_options, tell, write
from gptdist.checkpoint.find import resolve_checkpoint
from gptdist.checkpoint.manifest import read_manifest
from gptdist.config.model import ModelConfig
from gptdist.config.source import read_tree
from gptdist.model.arithmetic import num_parameters

GPTDIST = [sys.executable, "-m", "gptdist.cli.main"]
KINDS = ("distilled", "trained on", "from scratch")
WARMUP_SHARE = 0.05
"""Of the steps."""


@dataclass(frozen=True)
class Row:
    """What a model has come to."""

    name: str
    parameters: int
    tokens: int
    """Trained on since it was cut, or drawn."""

    loss: float | None
    """On the validation windows of the run, nats a token."""

    seconds: float

    def line(self) -> str:
        """Return the row as printed."""
        loss = "-" if self.loss is None else f"{self.loss:.4f}"
        return f"{self.name:<14} {self.parameters:>14,} {self.tokens:>14,} {loss:>10} {self.seconds:>10,.0f}"


def run_tree(cut: Mapping[str, Any], kind: str, *, teacher: Path, output: Path, steps: int, lr: float | None) -> Any:
    """Return the config of one of ``KINDS``.

    Args:
        cut: config of a run that begins with the cut model, as ``gptdist prune structure`` wrote it.
        kind: which.
        teacher: the run that was cut.
        output: folder of the benchmark.
        steps: of the run.
        lr: highest learning rate; default: the parent's.
    """
    name = kind.replace(" ", "-")
    tree = dict(cut) | {"name": name, "run_dir": str(output / name)}
    begins_cut = kind != "from scratch"
    tree["training"] = cut["training"] | {"train_steps": steps, "early_stopping": None}
    tree["training"]["init_from"] = cut["training"]["init_from"] if begins_cut else None
    if lr is not None:
        tree["optimizer"] = cut["optimizer"] | {"lr": lr}
    lengths = (f"{part}_{unit}" for part in ("decay", "cooldown", "warmup") for unit in ("steps", "tokens"))
    tree["schedule"] = cut["schedule"] | dict.fromkeys(lengths) | {"warmup_steps": int(WARMUP_SHARE * steps)}
    every = next(count for count in range(max(1, steps // 5), 0, -1) if steps % count == 0)  # the last step too
    tree["intervals"] = cut["intervals"] | {"eval_steps": every, "save_steps": steps, "sample_steps": None}
    tree.pop("distillation", None)
    if kind == "distilled":
        tree["distillation"] = {"teacher": str(teacher)}
    return tree


def call(argv: Sequence[str]) -> float:
    """Run a command whose output is shown, and return its seconds.

    Raises:
        SystemExit: it failed.
    """
    begin = time.perf_counter()
    done = subprocess.run([*GPTDIST, *argv], check=False)
    if done.returncode:
        raise SystemExit(f"gptdist {' '.join(argv)}: status {done.returncode}")
    return time.perf_counter() - begin


def row(name: str, checkpoint: Path, seconds: float) -> Row:
    """Return what the newest checkpoint of a folder says."""
    manifest = read_manifest(resolve_checkpoint(checkpoint))
    model = ModelConfig.from_tree(manifest.config["model"])
    is_cut = manifest.origin is not None
    tokens = 0 if is_cut else manifest.progress.consumed_tokens
    return Row(name, num_parameters(model), tokens, manifest.progress.validation_loss, seconds)


def measure(arguments: argparse.Namespace) -> list[Row]:
    """Cut, train and return a row for each model."""
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    cut, config = output / "cut", output / "cut.yaml"
    seconds = 0.0
    if not config.exists():
        what = ["prune", "structure", str(arguments.run), "--output", str(cut), "--write-config", str(config)]
        what += ["--target-parameters", str(arguments.share), "--axes", arguments.axes]
        seconds = call([*what, "--candidates", str(arguments.candidates)])
    rows = [row("parent", arguments.run, 0.0), row("cut", cut, seconds)]
    tree = read_tree(config)
    for kind in arguments.only:
        lr = arguments.lr if kind != "from scratch" else None
        one = run_tree(tree, kind, teacher=arguments.run, output=output, steps=arguments.steps, lr=lr)
        path = output / f"{one['name']}.yaml"
        path.write_text(yaml.safe_dump(one))
        seconds = call(["launch", "local", str(path)])
        rows.append(row(kind, Path(one["run_dir"]), seconds))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compress_structure")
    parser.add_argument("run", type=Path, help="folder of a trained run")
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoints and runs")
    parser.add_argument("--steps", type=int, required=True, help="of each run")
    parser.add_argument("--share", type=float, default=0.5, help="of the parent's parameters")
    parser.add_argument("--axes", default="ffn,hidden,heads", help="sizes that may shrink")
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--lr", type=float, help="of the runs that begin with the cut model (default: the parent's)")
    parser.add_argument("--only", nargs="*", choices=KINDS, default=list(KINDS))
    add_options(parser)
    arguments = parser.parse_args()
    rows = measure(arguments)
    print(json.dumps({"cores": os.cpu_count(), "load": os.getloadavg()}))
    print(f"{'model':<14} {'parameters':>14} {'tokens':>14} {'loss':>10} {'seconds':>10}   (validation, nats a token)")
    for one in rows:
        print(one.line())
    losses = {one.name: one.loss for one in rows}
    distilled, scratch = losses.get("distilled"), losses.get("from scratch")
    if distilled is not None and scratch is not None:
        print(f"distilled - from scratch: {distilled - scratch:+.4f} nats a token (aim: below 0)")
        unit, note = "nats a token", f"{arguments.steps} steps each on the same tokens"
        sides = ([distilled], [scratch])
        one = Comparison("a distilled half", "from scratch", unit, *sides, "lower", 1.0, "ourselves", note=note)
        write(arguments.json, tell([one]))


if __name__ == "__main__":
    main()
