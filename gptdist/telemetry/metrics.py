"""Numbers of a run: one console line, one line of metrics.jsonl, and TensorBoard, all from the same record."""

import json
import logging
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from gptdist.telemetry.line_file import LineFile
from gptdist.telemetry.rank_log import open_log
from gptdist.telemetry.wandb_run import WandbRun

logger = logging.getLogger(__name__)

METRICS_NAME = "metrics.jsonl"
SAMPLES_NAME = "samples.jsonl"
TENSORBOARD_FOLDER = "tensorboard"

_FORMATS = {
    "loss": "loss {:.4f}",
    "ce": "ce {:.4f}",
    "kl": "kl {:.4f}",
    "validation_loss": "validation loss {:.4f}",
    "bits_per_byte": "bits/byte {:.4f}",
    "grad_norm": "grad_norm {:.2f}",
    "lr": "lr {:.1e}",
    "tokens_per_second": "{:,.0f} tokens/s",
    "mfu": "mfu {:.2f}",
    "peak_memory_gib": "memory {:.2f} GiB",
}
"""What the console line shows, in this order."""


class Metrics:
    """Where a run's numbers go; on ranks other than 0 nothing is written."""

    def __init__(
        self,
        folder: Path,
        attempt: int,
        *,
        train_steps: int,
        first_step: int,
        tensorboard: bool,
        wandb: WandbRun | None = None,
    ) -> None:
        """Open the outputs in ``folder``.

        Args:
            folder: of the run.
            attempt: stands in every record, since a resumed run repeats steps after its checkpoint.
            train_steps: end of the progress bar.
            first_step: where the progress bar begins.
            tensorboard: whether to write event files.
            wandb: run at Weights & Biases; closed with the others.
        """
        self._lines = LineFile(folder / METRICS_NAME)
        self._samples = LineFile(folder / SAMPLES_NAME)
        self._attempt = attempt
        self._wandb = wandb
        self._writer: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # seconds to import, and only rank 0 needs it

            self._writer = SummaryWriter(log_dir=str(folder / TENSORBOARD_FOLDER), purge_step=first_step + 1)
        # A bar that moves is for eyes; a log file gets lines only.
        self._bar = tqdm(
            total=train_steps, initial=first_step, unit="step", disable=not sys.stderr.isatty(), dynamic_ncols=True
        )

    def __enter__(self) -> Self:
        """Return the metrics."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the outputs."""
        self._bar.close()
        self._to_tensorboard("close")
        if self._wandb is not None:
            self._wandb.close()

    def _to_tensorboard(self, method: str, *arguments: Any) -> None:
        """Have events written; after a disk has refused one, no more are, as TensorBoard's own thread has ended."""
        if self._writer is None:
            return
        try:
            getattr(self._writer, method)(*arguments)
        except OSError as error:
            logger.warning("tensorboard: no more events in this attempt (%s); metrics.jsonl has all numbers", error)
            self._writer = None

    def advance(self, step: int) -> None:
        """Move the progress bar to ``step``."""
        self._bar.update(step - self._bar.n)

    def begin_attempt(self, attempt: int, step: int) -> None:
        """Go on from ``step`` as another attempt."""
        self._attempt = attempt
        self.advance(step)

    def log(self, kind: str, step: int, numbers: dict[str, Any]) -> None:
        """Record ``numbers`` of ``step``.

        Args:
            kind: ``"train"`` or ``"validation"``.
            step: optimizer steps done.
            numbers: by name; a name carries its unit.
        """
        self._lines.append({"kind": kind, "attempt": self._attempt, "step": step, **numbers})
        for name, value in numbers.items():
            if isinstance(value, int | float):
                self._to_tensorboard("add_scalar", f"{kind}/{name}", value, step)
        if self._wandb is not None:
            self._wandb.log(kind, step, numbers)
        parts = [form.format(numbers[name]) for name, form in _FORMATS.items() if numbers.get(name) is not None]
        logger.info("step %d | %s", step, " | ".join(parts))

    def log_samples(self, step: int, samples: list[dict[str, Any]]) -> None:
        """Record texts that the model wrote after ``step``, each with its ``prompt`` and ``text``."""
        for number, sample in enumerate(samples):
            self._samples.append({"attempt": self._attempt, "step": step, **sample})
            text = f"**{sample['prompt']}**{sample['text']}"
            self._to_tensorboard("add_text", f"samples/{number}", text, step)
            logger.info("step %d | %s → %s", step, one_line(sample["prompt"]), one_line(sample["text"]))


def one_line(text: str, most: int = 80) -> str:
    """Return ``text`` on one line of a log: control characters escaped, cut to ``most`` characters."""
    shown = json.dumps(text, ensure_ascii=False)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


class ProgressHandler(logging.Handler):
    """Prints log lines above the progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line on standard output; where that refuses, such as a file on a full disk, training goes on."""
        try:
            tqdm.write(self.format(record), file=sys.stdout)
            sys.stdout.flush()
        except OSError:
            self.handleError(record)


def set_up_logging(rank: int, folder: Path | None = None) -> None:
    """Show information from rank 0, and warnings of every rank with its number; in ``folder`` each has it all."""
    shown: logging.Handler = ProgressHandler()
    if folder is not None and rank != 0:
        console = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")  # what is printed goes elsewhere
        shown = logging.StreamHandler(console)
    form = "%(message)s" if rank == 0 else f"rank {rank}: %(message)s"
    shown.setFormatter(logging.Formatter(form))
    shown.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    handlers = [shown] if folder is None else [shown, open_log(folder, rank)]
    for name in ("gptdist", "data_prep", "launch"):
        log = logging.getLogger(name)
        log.handlers = list(handlers)
        log.propagate = False
        log.setLevel(logging.INFO if rank == 0 or folder is not None else logging.WARNING)
