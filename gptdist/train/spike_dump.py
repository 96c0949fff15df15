"""The batch of a skipped step as text, with the documents that its samples are made of, for people to look at."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gptdist.data.label_mask import token_ids
from gptdist.data.trace import trace_samples
from gptdist.durable import write_whole
from gptdist.errors import DataError
from gptdist.tokenizer.tokenizer import load_tokenizer
from gptdist.train.run import Run

SPIKES_FOLDER = "spikes"


def dump_batch(run: Run, samples: Sequence[int], losses: Sequence[float | None], *, attempt: int) -> Path:
    """Write a line of JSON for each of the last step's ``samples``, and return the file; rank 0 calls it.

    Lines are in the order of ``losses``, the highest first, so that the sample to blame is at the top. Provenance that
    cannot be read costs the file the documents, not the run its life.
    """
    folder = run.config.folder / SPIKES_FOLDER
    folder.mkdir(exist_ok=True)
    tokenizer = load_tokenizer(run.config.data.tokenizer)
    lines = []
    found = zip(losses, samples, _origins(run, samples), strict=True)
    for loss, sample, origin in sorted(found, key=lambda one: _rank(one[0]), reverse=True):
        (row,) = run.data.rows(sample, 1)
        is_number = loss is None or math.isfinite(loss)
        record = {"loss": loss if is_number else str(loss), **origin, "text": tokenizer.decode(token_ids(row).tolist())}
        lines.append(json.dumps(record, ensure_ascii=False).encode("utf-8", errors="backslashreplace"))
    path = folder / f"step_{run.state.step:08d}_attempt_{attempt}.jsonl"
    write_whole(path, b"\n".join(lines) + b"\n")
    return path


def _rank(loss: float | None) -> tuple[bool, float]:
    """Return what samples are sorted by: what is no number is above all numbers, and what has no loss below."""
    if loss is None:
        return False, -math.inf
    return (False, loss) if math.isfinite(loss) else (True, 0.0)


def _origins(run: Run, samples: Sequence[int]) -> list[dict[str, Any]]:
    try:
        return [asdict(traced) for traced in trace_samples(run.data, samples)]
    except DataError as error:
        order = run.data.order
        return [
            {"sample": sample, "source": order.names[order.address(sample).source], "problem": str(error)}
            for sample in samples
        ]
