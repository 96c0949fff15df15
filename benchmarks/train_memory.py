"""Memory of a rank by ZeRO stage: what the formula says, and what the process needed.

``python -m benchmarks.train_memory [--precision bf16]``. Each layout is trained two steps in fresh processes.
Measured is the highest resident memory of a rank, beyond what it had before the model was built and after a first tiny
model had loaded the libraries. What tensors free goes back to the system here, unlike in a run on a CPU, which keeps it
for the next ones and so needs more. The states are also counted tensor by tensor.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.comparison import Comparison, add_options, tell, write
from benchmarks.rank import begin_rank, give_back_freed_memory, resident_bytes

MODEL = {"num_layers": 6, "hidden_size": 384, "num_attention_heads": 6, "seq_length": 256, "vocab_size": 16_000}

FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "llama": {
        "position_embedding": "rope",
        "normalization": "rmsnorm",
        "activation": "swiglu",
        "num_query_groups": 2,
        "add_bias": False,
        "tie_embeddings": False,
    },
}
STEPS, BATCH, MICRO_BATCH = 2, 4, 1
GOAL = 0.10
"""The formula's largest distance from what is measured."""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--family", choices=sorted(FAMILIES), nargs="+", default=sorted(FAMILIES))
    add_options(parser)
    arguments = parser.parse_args()
    precision = arguments.precision
    from tests.support.datasets import write_dataset

    layouts = [(2, zero, tensor) for tensor in (1, 2) for zero in range(4)] + [(1, 1, 1)]
    print(f"{MODEL}, {precision}, micro batch {MICRO_BATCH}, MB of a rank")
    print(f"{'':<34}{'weights':>9}{'optimizer':>10}{'gradients':>10}{'activations':>12}{'buffers':>9}", end="")
    print(f"{'formula':>9}{'measured':>10}{'ratio':>7}{'states':>9}{'counted':>9}")
    comparisons: list[Comparison] = []
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder, "data", "text"), documents=2000, shards=1)
        for family in arguments.family[:1] if arguments.quick else arguments.family:
            for ranks, zero, tensor in layouts[-1:] if arguments.quick else layouts:
                if precision == "bf16" and zero == 0:
                    continue
                tree = _tree(Path(folder), {**MODEL, **FAMILIES[family]}, precision, (ranks, zero, tensor))
                name = f"{family}, ZeRO-{zero}, data {ranks // tensor} x tensor {tensor}"
                found = _train(Path(folder), tree, ranks)
                _show(name, found)
                comparisons.append(_comparison(name, found))
    write(arguments.json, tell(comparisons))


def _comparison(name: str, found: dict[str, Any]) -> Comparison:
    """Return the formula beside what was measured."""
    sides = ([sum(found["peak"].values()) / 1e6], [found["measured"] / 1e6])
    return Comparison(f"formula, {name}", "resident memory", "MB", *sides, "equal", GOAL, "yardstick")


def _tree(folder: Path, model: dict[str, Any], precision: str, layout: tuple[int, int, int]) -> dict[str, Any]:
    ranks, zero, tensor = layout
    return {
        "name": "benchmark",
        "run_dir": str(folder / "run"),
        "model": model,
        "data": {
            "tokenizer": str(folder / "data" / "tokenizer"),
            "sources": [{"path": str(folder / "data" / "text"), "weight": 1.0}],
        },
        "batch": {"global_batch_size": BATCH, "micro_batch_size": MICRO_BATCH},
        "training": {"train_steps": 1000, "device": "cpu", "precision": precision},
        "parallel": {"zero_stage": zero, "tensor_parallel_size": tensor},
        "launch": {"ranks_per_node": ranks},
        "telemetry": {"tensorboard": False},
    }


def _train(folder: Path, tree: dict[str, Any], ranks: int) -> dict[str, Any]:
    """Return what the rank with most found."""
    store = Path(folder, "store")
    store.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "benchmarks.train_memory", "rank", json.dumps(tree)]
    processes = []
    for rank in range(ranks):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "BENCHMARK_STORE": f"file://{store}"}
        environment = {**os.environ, **{name: str(value) for name, value in place.items()}, "OMP_NUM_THREADS": "1"}
        processes.append(subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment, text=True))
    answers = []
    for process in processes:
        output, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"a rank ended with status {process.returncode}; its error is above")
        answers.append(json.loads(output.strip().splitlines()[-1]))
    return dict(max(answers, key=lambda answer: answer["measured"]))


def _show(name: str, found: dict[str, Any]) -> None:
    parts = [found["peak"][part] / 1e6 for part in ("weights", "optimizer", "gradients", "activations", "buffers")]
    ratio = sum(parts) * 1e6 / found["measured"]
    print(
        f"{name:<34}{parts[0]:>9,.0f}{parts[1]:>10,.0f}{parts[2]:>10,.0f}{parts[3]:>12,.0f}{parts[4]:>9,.0f}"
        f"{sum(parts):>9,.0f}{found['measured'] / 1e6:>10,.0f}{ratio:>7.2f}{found['states'] / 1e6:>9,.0f}"
        f"{found['counted'] / 1e6:>9,.0f}  {'' if abs(ratio - 1) <= GOAL else 'MISSED'}",
        flush=True,
    )


def _rank(tree: dict[str, Any]) -> None:
    """Train on one rank and print what it needed."""
    begin_rank()
    import torch.distributed as dist

    from gptdist.config.run import RunConfig
    from gptdist.model.memory import step_memory
    from gptdist.train.build import build, join
    from gptdist.train.loop import train_step
    from gptdist.train.stop_signal import StopSignal
    from tests.support.kept import tensor_bytes

    config = RunConfig.from_tree(tree)
    mesh, device = join(config, local_rank=int(os.environ["LOCAL_RANK"]))
    give_back_freed_memory()
    _load_libraries()
    before, counted_before = resident_bytes("VmRSS"), tensor_bytes()
    run = build(config, mesh, device, StopSignal())
    for _ in range(STEPS):
        run.state.advance(train_step(run))
    expected = step_memory(config, mesh.layout, on_gpu=False, value_bytes=device.dtype.itemsize)
    found = {
        "peak": vars(expected.peak),
        "states": expected.states,
        "measured": resident_bytes("VmHWM") - before,
        "counted": tensor_bytes() - counted_before,
    }
    dist.barrier()
    print(json.dumps(found))


def _load_libraries() -> None:
    """Do a little of everything once: kernels and their scratch memory are no part of the model."""
    import torch

    layer = torch.nn.TransformerEncoderLayer(64, 2, batch_first=True)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    layer(torch.ones(2, 8, 64)).sum().backward()
    optimizer.step()
    torch.distributed.all_reduce(torch.ones(1000))


if __name__ == "__main__":
    if sys.argv[1:2] == ["rank"]:
        _rank(json.loads(sys.argv[2]))
    else:
        main()
