"""The log says how often each source has been read, and when one begins to come again."""

import json
from pathlib import Path
from typing import Any

from tests.support.datasets import run_tree
from tests.support.jobs import open_run
from tests.support.ranks import run_ranks


def warnings_of(tree: dict[str, Any]) -> list[tuple[str, list[int]]]:
    """Train the run ``tree`` to its end; return its warnings, and the windows of its sources."""
    import logging

    from gptdist.train.loop import train

    said: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                said.append(record.getMessage())

    logging.getLogger("gptdist.train.loop").addHandler(Keep())
    run = open_run(tree)
    train(run)
    return said, list(run.data.order.windows)


def test_repetition_is_told_once_an_epoch(tmp_path: Path) -> None:
    tree = run_tree(
        tmp_path,
        training={"train_steps": 30},
        batch={"global_batch_size": 256, "micro_batch_size": 256},
        model={"num_layers": 1, "hidden_size": 8, "num_attention_heads": 1},
        intervals={"log_steps": 3, "eval_steps": 2, "save_steps": 5},
    )
    said, windows = run_ranks(1, warnings_of, tree)[0]
    records = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    last = [record for record in records if "epochs_prose" in record][-1]
    samples = 30 * 256
    assert abs(last["epochs_prose"] - 0.7 * samples / windows[0]) < 0.05
    assert abs(last["epochs_code"] - 0.3 * samples / windows[1]) < 0.05
    for name, epochs in (("prose", last["epochs_prose"]), ("code", last["epochs_code"])):
        expected = [f"data: '{name}' has been read whole; epoch {n} of it has begun" for n in range(2, int(epochs) + 2)]
        assert [line for line in said if f"'{name}'" in line] == expected
    assert last["epochs_prose"] > 2, "nothing came again"
