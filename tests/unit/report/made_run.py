"""Run folders made of records alone."""

import json
from pathlib import Path
from typing import Any

from gptdist.telemetry.ledger import Ledger
from tests.support.datasets import make_run_config

SHOWN = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def train_row(step: int, attempt: int = 1, **numbers: Any) -> dict[str, Any]:
    seconds = {f"{part}_seconds": 0.1 for part in ("data", "forward_backward", "communication", "optimizer", "other")}
    return {
        "kind": "train", "attempt": attempt, "step": step, "consumed_samples": 8 * step, "consumed_tokens": 512 * step,
        "loss": 5.0 - step / 100, "grad_norm": 1.0, "skipped": False, "lr": 1e-3, "tokens_per_second": 1000.0,
        "mfu": 0.3, "step_seconds": 0.5, **seconds, "evaluation_seconds": 0.0, "checkpoint_seconds": 0.0,
        "peak_memory_gib": 0.5, "epochs_python": step / 50,
    } | numbers  # fmt: skip


def append(run: Path, *rows: dict[str, Any]) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def start(ledger: Ledger, config: dict[str, Any], *, step: int = 0, from_attempt: int | None = None) -> None:
    ledger.write(
        "start", step=step, consumed_samples=8 * step, world_size=2, layout="2 ranks = data 2 x tensor 1",
        config=config, data_fingerprints={}, data_shares={"python": 1.0}, from_attempt=from_attempt,
    )  # fmt: skip


def make_run(folder: Path, name: str = "run", **config: Any) -> Path:
    """A run of two attempts: the first is killed after step 14, the second goes on from step 10 and ends at 20."""
    run = folder / name
    run.mkdir(parents=True)
    tree = make_run_config(folder, **{"launch": {"ranks_per_node": 2}} | config).tree()
    tree["data"]["sources"] = [{"path": "data/python", "weight": 1.0}]
    ledger = Ledger(run)
    start(ledger, tree)
    ledger.write("checkpoint", step=10, bytes=1000, consumed_samples=80, write_seconds=0.5)
    append(run, *(train_row(step) for step in range(1, 15)))
    ledger = Ledger(run)
    ledger.attempt = 2
    start(ledger, tree | {"seed": 9}, step=10, from_attempt=1)
    append(run, *(train_row(step, 2, tokens_per_second=2000.0) for step in range(11, 21)))
    append(run, {"kind": "validation", "attempt": 2, "step": 20, "validation_loss": 4.9, "bits_per_byte": 2.5})
    ledger.write(
        "skip", step=15, first_sample=112, last_sample=119, what="loss", value=9.0, mean=4.8, z_score=44.0,
        batch="spikes/step_00000015_attempt_2.jsonl",
    )  # fmt: skip
    ledger.write("done", step=20, consumed_samples=160)
    (run / "config.yaml").write_text(f"name: {SHOWN}\n")
    (run / "samples.jsonl").write_text(json.dumps({"attempt": 2, "step": 20, "prompt": "def", "text": SHOWN}) + "\n")
    return run
