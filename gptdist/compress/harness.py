"""Run tasks of lm-evaluation-harness on a model; no network is used."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptdist.errors import ConfigError

STDERR_ROUNDS = 1000
"""Resamplings for the error of a metric that has no formula for it."""


@dataclass(frozen=True)
class TaskScore:
    """One number of one task."""

    task: str
    metric: str
    """With the filter of the task's answers behind a comma, if it is not the plain one."""

    value: float
    stderr: float | None
    samples: int


def forbid_network() -> None:
    """Keep Hugging Face's libraries off the network; to be called before any of them is imported."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_EVALUATE_OFFLINE="1")


def run_tasks(
    model: Any, names: Sequence[str], *, include: Path | None, limit: int | None, num_fewshot: int | None
) -> list[TaskScore]:
    """Return the scores of the named tasks.

    Args:
        model: an adapter of the harness.
        names: tasks or groups of the harness, or of ``include``.
        include: folder of task files (YAML) of one's own.
        limit: documents a task at most.
        num_fewshot: examples in front of each question; default as the task says.

    Raises:
        ConfigError: a task is unknown, or its data is not on this machine.
    """
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    own = None if include is None else str(include)
    manager = TaskManager(include_path=own, include_defaults=False)
    if not set(names) <= set(manager.all_tasks):
        manager = TaskManager(include_path=own)  # seconds: the harness has thousands of files
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise ConfigError(
            f"--tasks: '{name}' is no task of lm-evaluation-harness, nor of --include; mend the name"
            for name in unknown
        )
    try:
        found = simple_evaluate(
            model,
            tasks=list(names),
            task_manager=manager,
            limit=limit,
            num_fewshot=num_fewshot,
            bootstrap_iters=STDERR_ROUNDS,
            log_samples=False,
        )
    except (OSError, ValueError) as error:  # the harness and datasets raise these for data that is not there
        first_line = str(error).strip().partition("\n")[0]
        raise ConfigError(
            [f"--tasks: {','.join(names)}: {first_line}; no network is used here, have the task's data on this machine"]
        ) from error
    return _scores(found)


def _scores(found: Any) -> list[TaskScore]:
    scores = []
    for task, numbers in found["results"].items():
        for key, value in numbers.items():
            metric, _, kind = key.partition(",")
            if "_stderr" in metric or not isinstance(value, int | float) or not kind:
                continue
            stderr = numbers.get(f"{metric}_stderr,{kind}")
            scores.append(
                TaskScore(
                    task=task,
                    metric=metric if kind == "none" else key,
                    value=float(value),
                    stderr=float(stderr) if isinstance(stderr, int | float) else None,
                    samples=int(found["n-samples"].get(task, {}).get("effective", 0)),
                )
            )
    return scores
