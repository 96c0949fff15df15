"""Training speed against what users would take instead, side by side in one run.

``python -m benchmarks.train_step [--peers PYTHON] [--only NAME …]``. PYTHON is an interpreter that has torch,
transformers with accelerate, and litgpt. All contenders of a table are warm before the first round, take turns, and are
compared round by round; medians are printed.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender, ratio_by_round, take_turns
from benchmarks.side_by_side import PEERS

SMALL = {"num_layers": 6, "hidden_size": 384, "num_attention_heads": 6, "seq_length": 512, "vocab_size": 32_000}
"""Of the single-process comparison."""

LARGE = {"num_layers": 8, "hidden_size": 768, "num_attention_heads": 12, "seq_length": 512, "vocab_size": 32_000}
"""Of the comparison of ZeRO stages: 81 M parameters."""


@dataclass(frozen=True)
class Scene:
    """What all contenders of a table share."""

    data: Path
    scratch: Path
    model: dict[str, int]
    batch: int
    """Sequences a step, over all ranks."""

    def ours(self, name: str, kind: str, *, ranks: int = 1, tensor: int = 1, zero: int = 1) -> Contender:
        """Return one of ours; two ranks get a thread each."""
        micro = self.batch * tensor // ranks
        tree = {
            "name": "benchmark",
            "run_dir": str(self.scratch / f"run-{name.replace(' ', '-')}"),
            "model": self.model,
            "data": {
                "tokenizer": str(self.data / "tokenizer"),
                "sources": [{"path": str(self.data / "text"), "weight": 1.0}],
            },
            "batch": {"global_batch_size": self.batch, "micro_batch_size": micro},
            "training": {"train_steps": 1_000_000, "device": "cpu"},
            "parallel": {"zero_stage": zero, "tensor_parallel_size": tensor},
            "launch": {"ranks_per_node": ranks},
            "telemetry": {"tensorboard": False},
        }
        argv = [sys.executable, "-m", "benchmarks.train_ours", kind, json.dumps({"config": tree})]
        return Contender(name, argv, ranks=ranks, threads=2 // ranks)

    def peer(self, name: str, python: str) -> Contender:
        """Return one of theirs."""
        settings: dict[str, Any] = {
            **self.model,
            "batch": self.batch,
            "tokens_path": str(self.data / "text" / "train-00000.bin"),
        }
        return Contender(name, [python, str(PEERS / f"train_{name}.py"), json.dumps(settings)], joins=False)


def main() -> None:
    """Print a table for each comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter that has the other tools")
    parser.add_argument("--only", nargs="+", choices=sorted(COMPARISONS), default=sorted(COMPARISONS))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    from tests.support.datasets import write_dataset

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        write_dataset(data / "text", documents=20_000, shards=1)
        for name in arguments.only:
            scratch = Path(folder, name)
            scratch.mkdir()
            COMPARISONS[name](data, scratch, arguments.rounds, arguments.peers)
            sys.stdout.flush()  # the next one takes minutes


def one_process(data: Path, scratch: Path, rounds: int, peers: str | None) -> None:
    """Compare one process of two threads with the peers, and with the machine's matrix multiplication."""
    from gptdist.config.model import ModelConfig
    from gptdist.model.arithmetic import flops_per_token

    scene = Scene(data, scratch, SMALL, batch=8)
    trainer = scene.ours("gptdist trainer", "trainer", zero=0)
    bare = scene.ours("bare loop on such an engine", "bare", zero=0)
    zero1 = scene.ours("gptdist trainer ZeRO-1", "trainer", zero=1)
    bare1 = scene.ours("bare loop on a ZeRO-1 engine", "bare", zero=1)
    matmul = Contender("matrix multiplication", [sys.executable, "-m", "benchmarks.train_ours", "matmul", "{}"])
    theirs = [scene.peer(name, peers) for name in ("transformers", "litgpt")] if peers else []
    take_turns([trainer, bare, zero1, bare1, matmul, *theirs], scratch, rounds=rounds, steps=2)
    tokens = scene.batch * SMALL["seq_length"]
    flops = flops_per_token(ModelConfig(**SMALL))
    print(f"\none process, 2 threads, {SMALL}, fp32, batch {scene.batch}")
    _show([trainer, bare, zero1, bare1, *theirs], tokens)
    for other, target in zip(theirs, (1.25, 1.1), strict=False):
        _ratio(f"gptdist / {other.name}", ratio_by_round(trainer, other), target)
    peaks = [matmul.answer["flops"] / seconds for seconds in matmul.seconds]
    shares = [tokens * flops / ours / peak for ours, peak in zip(trainer.seconds, peaks, strict=True)]
    print(f"  matrix multiplication: {sorted(peaks)[len(peaks) // 2] / 1e9:,.0f} GFLOP/s")
    _ratio("model FLOP/s / matrix multiplication", sorted(shares)[len(shares) // 2], 0.75)
    _ratio("trainer / bare loop", ratio_by_round(trainer, bare), 0.98)
    _ratio("trainer / bare loop, ZeRO-1", ratio_by_round(zero1, bare1), 0.98)
    print(f"  waiting for data: {trainer.answer['data_share']:.3%} of the step (target: below 1 %)")


def two_ranks(data: Path, scratch: Path, rounds: int, _: str | None) -> None:
    """Compare two ranks of one thread with torch's DDP, and tensor parallelism with one process of two threads."""
    scene = Scene(data, scratch, SMALL, batch=8)
    zero1 = scene.ours("ZeRO-1 on 2 ranks", "trainer", ranks=2)
    ddp = scene.ours("torch DDP on 2 ranks", "ddp", ranks=2, zero=0)
    tensor = scene.ours("tensor parallel 2", "trainer", ranks=2, tensor=2)
    single = scene.ours("one process, 2 threads", "trainer")
    take_turns([zero1, ddp, tensor, single], scratch, rounds=rounds, steps=2)
    print(f"\ntwo ranks of one thread, {SMALL}, fp32, batch {scene.batch}")
    _show([zero1, ddp, tensor, single], scene.batch * SMALL["seq_length"])
    _ratio("ZeRO-1 / torch DDP", ratio_by_round(zero1, ddp), 0.95)
    _ratio("tensor parallel 2 / one process", ratio_by_round(tensor, single), 0.85)


def zero_stages(data: Path, scratch: Path, rounds: int, _: str | None) -> None:
    """Compare ZeRO-2 and ZeRO-3 with ZeRO-1 on a larger model."""
    scene = Scene(data, scratch, LARGE, batch=8)
    stages = {zero: scene.ours(f"ZeRO-{zero} on 2 ranks", "trainer", ranks=2, zero=zero) for zero in (1, 2, 3)}
    take_turns(list(stages.values()), scratch, rounds=rounds, steps=1)
    print(f"\ntwo ranks of one thread, {LARGE}, fp32, batch {scene.batch}")
    _show(list(stages.values()), scene.batch * LARGE["seq_length"])
    _ratio("ZeRO-3 / ZeRO-1", ratio_by_round(stages[3], stages[1]), 0.8)


COMPARISONS = {"one_process": one_process, "two_ranks": two_ranks, "zero_stages": zero_stages}


def _show(contenders: Sequence[Contender], tokens: int) -> None:
    print(f"  {'':<34}{'s a step':>10}{'tokens/s':>10}{'peak MB':>10}{'loss':>10}")
    for one in contenders:
        peak = one.answer.get("peak_bytes")
        memory = f"{peak / 1e6:,.0f}" if peak else ""
        loss = f"{one.answer['loss']:.3f}" if "loss" in one.answer else ""
        print(f"  {one.name:<34}{one.step_seconds:>10.3f}{tokens / one.step_seconds:>10,.0f}{memory:>10}{loss:>10}")


def _ratio(name: str, ratio: float, target: float) -> None:
    print(f"  {name:<48}{ratio:>6.2f} x (target {target:g}, {'reached' if ratio >= target else 'MISSED'})")


if __name__ == "__main__":
    main()
