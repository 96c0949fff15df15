"""Everything that makes models smaller, measured on a model that this trains itself.

``python -m benchmarks.compress OUT [--run RUN] [--llmcompressor-python PATH]`` prepares the demo's data in ``OUT`` and
trains ``configs/runs/compress-cpu.yaml`` there, unless a trained run is named; then, one after the other, each a
module with a page of its own:

- ``compress_sparsity``: perplexities at half of the weights, beside what other libraries make of the model;
- ``compress_structure``: half of the parameters, distilled, against the same shape from scratch on the same tokens;
- ``distill_step``: a step under a teacher against a step and the teacher's forward pass;
- ``export_memory``: host memory while a model is written.

What is there already is not trained again.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.comparison import Comparison, add_options, read, write

QUICK = (
    *("training.train_steps=20", "schedule.warmup_steps=5", "intervals.eval_steps=10", "intervals.save_steps=10"),
    *("batch.global_batch_size=4", "batch.micro_batch_size=4", "intervals.log_steps=5"),
)
"""A run where figures do not matter."""

PARTS = ("compress_sparsity", "compress_structure", "distill_step", "export_memory")
REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / "configs"
STEPS = 600
"""Of the runs with half of the parameters."""


def run_module(module: str, words: Sequence[str], folder: Path) -> None:
    """Run ``python -m module`` in ``folder``, and end where it fails."""
    print(f"\n$ python -m {module} {' '.join(words)}", flush=True)
    paths = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths, "TQDM_DISABLE": "1"}
    done = subprocess.run([sys.executable, "-m", module, *words], cwd=folder, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"python -m {module}: status {done.returncode}")


def trained_run(folder: Path, overrides: Sequence[str]) -> Path:
    """Return the run of the model, trained here if need be."""
    for words in (
        ["prep", "run", str(CONFIGS / "data/demo.yaml")],
        ["launch", "local", str(CONFIGS / "runs/compress-cpu.yaml"), *overrides],
    ):
        run_module("gptdist.cli.main", words, folder)
    return folder / "runs/compress-cpu"


def main() -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compress")
    parser.add_argument("output", type=Path, metavar="OUT", help="folder for data, runs and models")
    parser.add_argument("--run", type=Path, help="a trained run, whose data lie where its config says, from OUT")
    parser.add_argument("--llmcompressor-python", type=Path, help="Python of an environment with llm-compressor")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    add_options(parser)
    arguments = parser.parse_args()
    folder: Path = arguments.output.resolve() / ("quick" if arguments.quick else "")  # no run is taken for the other
    folder.mkdir(parents=True, exist_ok=True)
    run = trained_run(folder, QUICK if arguments.quick else ()) if arguments.run is None else arguments.run.resolve()
    peer = [] if arguments.llmcompressor_python is None else ["--llmcompressor-python"]
    peer += [str(arguments.llmcompressor_python.absolute()) for _ in peer]
    words: dict[str, list[str]] = {
        "compress_sparsity": [str(run), "--output", "sparsity", *peer],
        "compress_structure": [str(run), "--output", "structure", "--steps", str(20 if arguments.quick else STEPS)],
    }
    quick = ["--quick"] if arguments.quick else []
    found: list[Comparison] = []
    for part in arguments.only:
        answer = folder / f"{part}.json"
        run_module(f"benchmarks.{part}", [*words.get(part, []), "--json", str(answer), *quick], folder)
        found += read(answer)
    write(arguments.json, found)


if __name__ == "__main__":
    main()
