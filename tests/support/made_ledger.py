"""Records of a run that was never trained: a ledger with its digests, and metrics."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from gptdist.checkpoint.manifest import Manifest, Progress, SavedLayout
from gptdist.checkpoint.proof import StepRecord, order_digest
from gptdist.checkpoint.prove import make_proof, source_positions
from gptdist.checkpoint.seals import write_manifest
from gptdist.config.run import RunConfig
from gptdist.data.attempts import START, start_facts
from gptdist.data.sources import TrainingData
from gptdist.mesh.layout import Layout
from gptdist.telemetry.ledger import Ledger, append_json_line
from gptdist.telemetry.metrics import METRICS_NAME
from tests.support.datasets import make_run_config, run_tree


class MadeRun:
    """Writes the records that a run with steps of 8 samples would."""

    def __init__(self, folder: Path) -> None:
        """Let the run be in ``folder``/run."""
        self.folder = folder
        self.run = folder / "run"

    def start(self, step: int, consumed: int, parent: int | None, **changes: Any) -> Ledger:
        """Begin another attempt, which goes on from a checkpoint of attempt ``parent``; return its ledger."""
        ledger = Ledger(self.run)
        self.write_start(ledger, step, consumed, parent, **changes)
        return ledger

    def write_start(self, ledger: Ledger, step: int, consumed: int, parent: int | None, **changes: Any) -> None:
        """Write the line of a start."""
        config = RunConfig.from_tree(run_tree(self.folder, **{"training": {"train_steps": 100}} | changes))
        data = TrainingData(config)
        facts = start_facts(
            config.tree(),
            data.fingerprints(),
            step=step,
            consumed_samples=consumed,
            layout=Layout.of(config.parallel, 1),
            shares={},
        )
        self.order = data.order
        order = order_digest(source_positions(data.order, consumed))
        ledger.write(START, **facts, from_attempt=parent, order=order)

    def logged(self, attempt: int, step: int, consumed: int) -> None:
        """Write a line of metrics."""
        row = {"kind": "train", "attempt": attempt, "step": step, "consumed_samples": consumed, "loss": 1.0}
        append_json_line(self.run / METRICS_NAME, row)

    def saved(self, ledger: Ledger, step: int, consumed: int) -> None:
        """Write the line of a checkpoint."""
        order = order_digest(source_positions(self.order, consumed))
        ledger.write("checkpoint", step=step, seconds=0.1, consumed_samples=consumed, order=order)

    def save(self, step: int, attempt: int, consumed: int | None = None, **changes: Any) -> Path:
        """Write the manifest that a checkpoint of ``step`` has, with the last two steps recorded."""
        consumed = 8 * step if consumed is None else consumed
        config = make_run_config(self.folder, training={"train_steps": 100}, **changes)
        steps = [StepRecord(step=one, loss=float(one), grad_norm=1.0) for one in (step - 1, step)]
        proof = make_proof(TrainingData(config), attempt=attempt, consumed_samples=consumed, samples=8, steps=steps)
        folder = self.run / "checkpoints" / f"step_{step:08d}"
        folder.mkdir(parents=True)
        progress = Progress(step=step, consumed_samples=consumed, consumed_tokens=0, optimizer_step=step, proof=proof)
        write_manifest(folder, empty_manifest(config, progress))
        return folder


def empty_manifest(config: RunConfig, progress: Progress) -> Manifest:
    """Return the manifest of a checkpoint without tensors, for what looks at progress and config alone."""
    return Manifest(
        format="gptdist-checkpoint",
        version=1,
        progress=progress,
        config=config.tree(),
        tokenizer_fingerprint="",
        data_fingerprints={},
        layout=SavedLayout(world_size=1, zero_stage=1, **asdict(Layout(1, 1, 1, 1))),
        tensors=(),
        fragments=(),
        files=(),
    )
