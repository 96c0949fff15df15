"""Training speed against what users would take instead, side by side in one run.

``python -m benchmarks.train_step [--peers PYTHON] [--only NAME …]``. PYTHON is an interpreter that has torch,
transformers with accelerate, and litgpt. All contenders of a table are warm before the first round, take turns, and are
compared round by round; medians are printed.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.comparison import Against, Comparison, add_options, tell, write
from benchmarks.contenders import Contender, take_turns
from benchmarks.peer_environment import why_missing
from benchmarks.side_by_side import PEERS

SMALL = {"num_layers": 6, "hidden_size": 384, "num_attention_heads": 6, "seq_length": 512, "vocab_size": 32_000}
"""Of the single-process comparison."""

LARGE = {"num_layers": 8, "hidden_size": 768, "num_attention_heads": 12, "seq_length": 512, "vocab_size": 32_000}
"""Of the comparison of ZeRO stages: 81 M parameters."""

TINY = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 2, "seq_length": 64, "vocab_size": 32_000}
"""Where figures do not matter."""

PEER_TARGETS = {"transformers": 1.25, "litgpt": 1.1}


@dataclass(frozen=True)
class Scene:
    """What all contenders of a table share."""

    data: Path
    scratch: Path
    model: dict[str, int]
    rounds: int
    steps: int
    """Of a round."""

    peers: str | None
    """Interpreter."""

    batch: int = 8
    """Sequences a step, over all ranks."""

    def turns(self, contenders: Sequence[Contender]) -> None:
        """Have them take turns, and print what a step took."""
        take_turns(contenders, self.scratch, rounds=self.rounds, steps=self.steps)
        _show(contenders, self.batch * self.model["seq_length"])

    def beside(self, one: Contender, other: Contender, target: float, against: Against = "tool") -> Comparison:
        """Return the tokens a second of two."""
        tokens = self.batch * self.model["seq_length"]
        sides = ([tokens / seconds for seconds in side.seconds] for side in (one, other))
        return Comparison(one.name, other.name, "tokens/s", *sides, "higher", target, against)

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
    parser.add_argument("--steps", type=int, default=2, help="of a round (default: 2)")
    add_options(parser)
    arguments = parser.parse_args()
    from tests.support.datasets import write_dataset

    rounds, steps = (1, 1) if arguments.quick else (arguments.rounds, arguments.steps)
    found: list[Comparison] = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        write_dataset(data / "text", documents=20_000, shards=1)
        for name in arguments.only:
            measure, model = COMPARISONS[name]
            scratch = Path(folder, name)
            scratch.mkdir()
            scene = Scene(data, scratch, TINY if arguments.quick else model, rounds, steps, arguments.peers)
            print(f"\n{name}: {scene.model}, fp32, batch {scene.batch}", flush=True)  # it takes minutes
            found += tell(measure(scene))
    write(arguments.json, found)


def one_process(scene: Scene) -> list[Comparison]:
    """Compare one process of two threads with the peers, and with the machine's matrix multiplication."""
    trainer = scene.ours("gptdist trainer", "trainer", zero=0)
    bare = scene.ours("bare loop on such an engine", "bare", zero=0)
    zero1 = scene.ours("gptdist trainer ZeRO-1", "trainer", zero=1)
    bare1 = scene.ours("bare loop on a ZeRO-1 engine", "bare", zero=1)
    matmul = Contender("matrix multiplication", [sys.executable, "-m", "benchmarks.train_ours", "matmul", "{}"])
    missing = {name: why_missing(scene.peers, "torch", *_needs(name)) for name in PEER_TARGETS}
    theirs = [scene.peer(name, str(scene.peers)) for name in PEER_TARGETS if not missing[name]]
    scene.turns([trainer, bare, zero1, bare1, matmul, *theirs])
    print(f"  waiting for data: {trainer.answer['data_share']:.3%} of the step (target: below 1 %)")
    found = [scene.beside(trainer, other, PEER_TARGETS[other.name]) for other in theirs]
    for name in (name for name, why in missing.items() if why):
        ours = scene.beside(trainer, trainer, 1).ours
        absent = Comparison(
            trainer.name, name, "tokens/s", ours, (), "higher", PEER_TARGETS[name], missing=missing[name]
        )
        found.append(absent)
    return [
        *found,
        _share_of_peak(scene, trainer, matmul),
        scene.beside(trainer, bare, 0.98, "yardstick"),
        scene.beside(zero1, bare1, 0.98, "yardstick"),
    ]


def _needs(name: str) -> tuple[str, ...]:
    return {"transformers": ("transformers", "accelerate"), "litgpt": ("litgpt", "lightning")}[name]


def _share_of_peak(scene: Scene, trainer: Contender, matmul: Contender) -> Comparison:
    """Return the model's FLOP/s beside those of a large product alone."""
    from gptdist.config.model import ModelConfig
    from gptdist.model.arithmetic import flops_per_token

    flops = flops_per_token(ModelConfig(**scene.model)) * scene.batch * scene.model["seq_length"]
    return Comparison(
        "model FLOP/s",
        matmul.name,
        "GFLOP/s",
        [flops / seconds / 1e9 for seconds in trainer.seconds],
        [matmul.answer["flops"] / seconds / 1e9 for seconds in matmul.seconds],
        "higher",
        0.75,
        "yardstick",
    )


def two_ranks(scene: Scene) -> list[Comparison]:
    """Compare two ranks of one thread with torch's DDP, and tensor parallelism with one process of two threads."""
    zero1 = scene.ours("ZeRO-1 on 2 ranks", "trainer", ranks=2)
    ddp = scene.ours("torch DDP on 2 ranks", "ddp", ranks=2, zero=0)
    tensor = scene.ours("tensor parallel 2", "trainer", ranks=2, tensor=2)
    single = scene.ours("one process, 2 threads", "trainer")
    scene.turns([zero1, ddp, tensor, single])
    return [scene.beside(zero1, ddp, 0.95), scene.beside(tensor, single, 0.85, "ourselves")]


def zero_stages(scene: Scene) -> list[Comparison]:
    """Compare ZeRO-2 and ZeRO-3 with ZeRO-1 on a larger model."""
    stages = {zero: scene.ours(f"ZeRO-{zero} on 2 ranks", "trainer", ranks=2, zero=zero) for zero in (1, 2, 3)}
    scene.turns(list(stages.values()))
    return [scene.beside(stages[3], stages[1], 0.8, "ourselves")]


COMPARISONS: dict[str, tuple[Callable[[Scene], list[Comparison]], dict[str, int]]] = {
    "one_process": (one_process, SMALL),
    "two_ranks": (two_ranks, SMALL),
    "zero_stages": (zero_stages, LARGE),
}


def _show(contenders: Sequence[Contender], tokens: int) -> None:
    print(f"  {'':<34}{'s a step':>10}{'tokens/s':>10}{'peak MB':>10}{'loss':>10}")
    for one in contenders:
        peak = one.answer.get("peak_bytes")
        memory = f"{peak / 1e6:,.0f}" if peak else ""
        loss = f"{one.answer['loss']:.3f}" if "loss" in one.answer else ""
        print(f"  {one.name:<34}{one.step_seconds:>10.3f}{tokens / one.step_seconds:>10,.0f}{memory:>10}{loss:>10}")


if __name__ == "__main__":
    main()
