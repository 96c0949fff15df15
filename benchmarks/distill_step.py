"""A step under a teacher against a plain step of the student and a forward pass of the teacher, side by side.

``python -m benchmarks.distill_step [--rounds N]``. All three are warm before the first round, take turns, and are
compared round by round; medians are printed. One process of two threads; ``--tensor 2`` takes two ranks of one.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.comparison import Comparison, add_options, tell, write
from benchmarks.contenders import Contender, serve, take_turns

STUDENT = {"num_layers": 6, "hidden_size": 384, "num_attention_heads": 6, "seq_length": 512, "vocab_size": 32_000}
TEACHER = {"num_layers": 8, "hidden_size": 640, "num_attention_heads": 10, "seq_length": 512, "vocab_size": 32_000}
BATCH = 8
"""Sequences a step, and of a forward pass of the teacher."""

TINY = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 2, "seq_length": 64}
"""What is smaller where figures do not matter."""

TARGET = 1.15


def main() -> None:
    """Print seconds of a step, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tensor", type=int, default=1, help="ranks that share the models")
    add_options(parser)
    parser.add_argument("--rank", nargs=2, metavar=("KIND", "JSON"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:
        _be_rank(arguments.rank[0], json.loads(arguments.rank[1]))
        return
    from tests.support.datasets import write_dataset

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder / "data/text", documents=20_000, shards=1)
        smaller = TINY if arguments.quick else {}
        _write_teacher(folder / "teacher", folder / "data/tokenizer", TEACHER | smaller)
        kinds = ("distill", "student", "teacher")
        contenders = {kind: _contender(kind, folder, STUDENT | smaller, arguments.tensor) for kind in kinds}
        take_turns(list(contenders.values()), folder, rounds=1 if arguments.quick else arguments.rounds, steps=2)
    for kind, one in contenders.items():
        print(f"  {kind:<10}{one.step_seconds:>10.3f} s")
    student, teacher = contenders["student"].seconds, contenders["teacher"].seconds
    parts = [sum(pair) for pair in zip(student, teacher, strict=True)]
    distill = contenders["distill"].seconds
    one = Comparison(
        "distillation step", "student step + teacher forward", "s", distill, parts, "lower", TARGET, "yardstick"
    )
    write(arguments.json, tell([one]))


def _contender(kind: str, folder: Path, student: dict[str, int], tensor: int) -> Contender:
    tree: dict[str, Any] = {
        "name": "benchmark",
        "run_dir": str(folder / f"run-{kind}"),
        "model": student,
        "data": {"tokenizer": str(folder / "data/tokenizer"), "sources": [{"path": str(folder / "data/text")}]},
        "batch": {"global_batch_size": BATCH, "micro_batch_size": BATCH},
        "training": {"train_steps": 1_000_000, "device": "cpu"},
        "parallel": {"tensor_parallel_size": tensor},
        "launch": {"ranks_per_node": tensor},
        "telemetry": {"tensorboard": False},
        "distillation": None if kind == "student" else {"teacher": str(folder / "teacher")},
    }
    argv = [sys.executable, "-m", "benchmarks.distill_step", "--rank", kind, json.dumps(tree)]
    return Contender(kind, argv, ranks=tensor, threads=2 // tensor)


def _write_teacher(folder: Path, tokenizer: Path, sizes: dict[str, int]) -> None:
    import torch

    from gptdist.checkpoint.manifest import Origin, Progress
    from gptdist.checkpoint.weights_only import write_weights
    from gptdist.config.model import ModelConfig
    from gptdist.model.hf_names import logical_shapes
    from gptdist.tokenizer.tokenizer import load_tokenizer

    model = ModelConfig.from_tree(sizes)
    write_weights(
        folder,
        ((name, 0.02 * torch.randn(shape)) for name, shape in logical_shapes(model).items()),
        config={"name": "teacher", "model": model.tree(), "data": {"sources": []}},
        progress=Progress(step=0, consumed_samples=0, consumed_tokens=0, optimizer_step=0),
        tokenizer_fingerprint=load_tokenizer(tokenizer).fingerprint,
        origin=Origin(kind="average", sources=()),
    )


def _be_rank(kind: str, tree: dict[str, Any]) -> None:
    import os

    from benchmarks.rank import begin_rank

    begin_rank()
    import torch

    from gptdist.config.run import RunConfig
    from gptdist.train.build import build, join
    from gptdist.train.stop_signal import StopSignal

    config = RunConfig.from_tree(tree)
    mesh, device = join(config, local_rank=int(os.environ["LOCAL_RANK"]))
    run = build(config, mesh, device, StopSignal())
    with torch.enable_grad():
        serve(_teacher_forward(run) if kind == "teacher" else _steps(run))


def _steps(run: Any) -> Callable[[int], dict[str, Any]]:
    from gptdist.train.loop import train_step

    def work(steps: int) -> dict[str, Any]:
        begin = time.perf_counter()
        for _ in range(steps):
            run.state.advance(train_step(run))
        return {"seconds": time.perf_counter() - begin, "loss": run.state.loss}

    return work


def _teacher_forward(run: Any) -> Callable[[int], dict[str, Any]]:
    """Have the teacher evaluate a batch: hidden states, and the loss of its logits, a chunk at a time."""
    import torch

    from gptdist.checkpoint.load import load_weights
    from gptdist.checkpoint.read import CheckpointReader
    from gptdist.checkpoint.teacher import named_teacher
    from gptdist.data.batches import Batch
    from gptdist.model.gpt import LanguageModel, transformer_config
    from gptdist.model.parameters import local_parameters

    found, mesh = named_teacher(run.config.distillation.teacher), run.mesh
    model = LanguageModel(found.model, transformer_config(found.model, mesh, torch.float32), mesh)
    size = mesh.layout.tensor_parallel_size
    load_weights(
        CheckpointReader(found.folder), list(local_parameters(model, found.model, size, tp_rank=mesh.place.tp_rank))
    )
    model.eval()
    batch = Batch.of(run.data.rows(0, BATCH), run.device.torch_device)

    def work(steps: int) -> dict[str, Any]:
        begin = time.perf_counter()
        with torch.no_grad():
            for _ in range(steps):
                model(batch.tokens, batch.positions(), None, labels=batch.labels)
        return {"seconds": time.perf_counter() - begin}

    return work


if __name__ == "__main__":
    main()
